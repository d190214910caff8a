%% Empties the ring, numbers what it finds, and publishes it in batches. Waits for nobody.
-module(topicwarden_audit_sink).

-behaviour(gen_server).

-export([bindings/1, finish/0, passed/1, standing/1, start_link/0, stop_recording/0]).
-export([handle_call/3, handle_cast/2, handle_info/2, init/1, terminate/2]).

-include_lib("rabbit_common/include/rabbit.hrl").
-include_lib("rabbit_common/include/rabbit_framing.hrl").
-include("topicwarden_audit.hrl").

-define(BATCH, 1000).                 % events
-define(QUIET, 1000).                 % milliseconds after which an empty batch says that we are there
-define(EPOCH_MILLISECONDS, 60000).
-define(NAMES_IN_EPOCH, 32768).
-define(HOLE_MILLISECONDS, 2000).
-define(IDLE, 1000).                  % milliseconds between looks while nothing is bound

-record(state, {
    shared :: #shared{},
    slots :: pos_integer(),           % as configured
    flush :: pos_integer(),           % milliseconds
    exchange :: rabbit_types:r(exchange),
    boot :: non_neg_integer(),
    generation :: non_neg_integer(),  % also while nothing is recorded
    recording = false :: boolean(),
    bindings = [] :: [integer()],
    tail = 0 :: non_neg_integer(),
    hole = none :: none | {non_neg_integer(), integer()},
    batch = 0 :: non_neg_integer(),
    sent = 0 :: non_neg_integer(),    % events
    dropped = 0 :: non_neg_integer(), % in rings that were replaced
    first = false :: boolean(),       % the next batch begins an epoch
    began = 0 :: integer(),           % the epoch, in monotonic milliseconds
    last_sent = 0 :: integer(),
    defined = #{} :: #{non_neg_integer() => binary()},   % in this epoch
    before = #{} :: #{non_neg_integer() => binary()},    % in the one before
    told = #{} :: #{binary() => binary()},               % notes repeated at every epoch
    definitions = [] :: iolist(),     % changes and notes for the next batch, last first
    definition_count = 0 :: non_neg_integer(),
    %% Events that did not come through the ring, last first: a connection begins before what it does, and ends after.
    begun = [] :: iolist(),
    ended = [] :: iolist(),
    event_count = 0 :: non_neg_integer(),
    overflown = 0 :: non_neg_integer(),
    timer = none :: none | reference()
}).

start_link() -> gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% What is bound to the exchange, each binding as a number.
-spec bindings([integer()]) -> ok.
bindings(Bindings) -> gen_server:cast(?MODULE, {bindings, Bindings}).

%% Notes to be said now and at the start of every epoch; an empty one takes an earlier one back.
-spec standing(#{binary() => binary()}) -> ok.
standing(Notes) -> gen_server:cast(?MODULE, {standing, Notes}).

%% Something the event handler saw.
-spec passed(tuple()) -> ok.
passed(Message) -> gen_server:cast(?MODULE, {passed, Message}).

%% Nothing is recorded from here on.
-spec stop_recording() -> ok.
stop_recording() ->
    case topicwarden_audit_ring:current() of
        off -> ok;
        Shared -> topicwarden_audit_ring:set_generation(Shared, 0)
    end.

%% Send what is left, and say that we stop.
-spec finish() -> ok.
finish() ->
    try
        gen_server:call(?MODULE, finish, 10000)
    catch
        _:_ -> ok
    end.

init([]) ->
    process_flag(trap_exit, true),
    process_flag(message_queue_data, off_heap),
    %% When every scheduler is busy the broker's queues grow and so does the ring: our turn has to come in time.
    process_flag(priority, high),
    Slots = positive(max_pending, 65536),
    {Ring, Shift} = topicwarden_audit_ring:create(Slots),
    Table = [public, {read_concurrency, true}, {write_concurrency, true}],
    Shared = #shared{
        ring = Ring,
        shift = Shift,
        names = ets:new(topicwarden_audit_names, [set | Table]),
        fresh = ets:new(topicwarden_audit_fresh, [set, public, {write_concurrency, true}]),
        connections = ets:new(topicwarden_audit_connections, [set | Table]),
        started = erlang:system_time(millisecond)
    },
    persistent_term:put(?SHARED, Shared),
    <<Boot:64>> = crypto:strong_rand_bytes(8),
    State = #state{
        shared = Shared,
        slots = Slots,
        flush = positive(flush_ms, 20),
        exchange = rabbit_misc:r(
            topicwarden_audit_keeper:setting(vhost, <<"/">>),
            exchange,
            topicwarden_audit_keeper:setting(exchange, <<"amq.topicwarden.audit">>)
        ),
        boot = Boot,
        generation = instance() bsl (?EPOCH_BITS + ?REVISION_BITS)
    },
    {ok, State#state{timer = erlang:send_after(?IDLE, self(), poll)}}.

%% Numbers cached by channels for an earlier sink must not pass for ours.
instance() ->
    Instance = persistent_term:get({?MODULE, instance}, 0) + 1,
    persistent_term:put({?MODULE, instance}, Instance),
    Instance rem (1 bsl 18).

handle_call(finish, _, State) ->
    {reply, ok, finish(State)};
handle_call(_, _, State) ->
    {reply, ok, State}.

handle_cast({passed, Message}, State) ->
    atomics:sub((State#state.shared)#shared.ring, ?MESSAGES, 1),
    {noreply, recorded(Message, State)};
handle_cast({bindings, Bindings}, #state{bindings = Bindings} = State) ->
    {noreply, State};
handle_cast({bindings, []}, State) ->
    {noreply, stop(State)};
handle_cast({bindings, Bindings}, #state{recording = false} = State) ->
    {noreply, start(State#state{bindings = Bindings})};
handle_cast({bindings, Bindings}, #state{bindings = Earlier} = State) ->
    State1 = State#state{bindings = Bindings},
    case Bindings -- Earlier of
        [] -> {noreply, State1};
        _ -> {noreply, new_epoch(State1)}
    end;
handle_cast({standing, Notes}, State) ->
    {noreply, standing(Notes, State)};
handle_cast(_, State) ->
    {noreply, State}.

handle_info(poll, #state{recording = false} = State) ->
    {noreply, State#state{timer = erlang:send_after(?IDLE, self(), poll)}};
handle_info(poll, State) ->
    Timer = erlang:send_after(State#state.flush, self(), poll),
    {noreply, poll(State#state{timer = Timer})};
handle_info({retired, #shared{ring = Ring} = Shared, Counted}, State) ->
    %% Whoever still had the ring after we left it wrote for nobody.
    Late = topicwarden_audit_ring:head(Shared) + atomics:get(Ring, ?DROPPED) - Counted,
    {noreply, State#state{dropped = State#state.dropped + Late}};
handle_info(_, State) ->
    {noreply, State}.

terminate(_, State) ->
    stop_recording(),
    finish(State),
    ok.

%%% Recording

start(State) ->
    Connections = (State#state.shared)#shared.connections,
    ets:delete_all_objects(Connections),
    %% So that the end of a connection has a name, whenever it began.
    ets:foldl(fun({Pid, Infos}, _) -> connection(Pid, Infos, State) end, none, connection_created),
    erlang:cancel_timer(State#state.timer),
    Timer = erlang:send_after(State#state.flush, self(), poll),
    new_epoch(State#state{recording = true, timer = Timer}).

stop(#state{recording = false} = State) ->
    State#state{bindings = []};
stop(State) ->
    stop_recording(),
    State1 = drain(State),
    ets:delete_all_objects((State#state.shared)#shared.connections),
    State1#state{
        bindings = [],
        recording = false,
        definitions = [],
        definition_count = 0,
        begun = [],
        ended = [],
        event_count = 0
    }.

%% The last words.
finish(#state{recording = false} = State) ->
    State;
finish(State) ->
    State1 = drain(State),
    State2 = send(note(<<"stopping">>, <<>>, State1)),
    stop_recording(),
    State2#state{recording = false, bindings = []}.

poll(State) ->
    State1 = overflow(drain(State)),
    Now = now_ms(),
    Due =
        Now - State1#state.began >= ?EPOCH_MILLISECONDS orelse
            atomics:get((State1#state.shared)#shared.ring, ?NAMES) > ?NAMES_IN_EPOCH,
    if
        Due ->
            new_epoch(State1);
        State1#state.definition_count > 0; State1#state.event_count > 0; Now - State1#state.last_sent >= ?QUIET ->
            send(State1);
        true ->
            State1
    end.

%% Everything before is sent in its own epoch first.
new_epoch(State0) ->
    #state{shared = #shared{ring = Ring, names = Names} = Shared} = State1 = drain(State0),
    State2 =
        case State1#state.definition_count + State1#state.event_count of
            0 -> State1;
            _ -> send(State1)
        end,
    Generation = (?EPOCH(State2#state.generation) + 1) bsl ?REVISION_BITS,
    topicwarden_audit_ring:set_generation(Shared, Generation),
    ets:delete_all_objects(Names),
    atomics:put(Ring, ?NAMES, 0),
    State3 = State2#state{
        generation = Generation, first = true, began = now_ms(), defined = #{}, before = State2#state.defined
    },
    State4 = maps:fold(fun note/3, State3, State3#state.told),
    send(State4).

%% What channels keep is to be asked again, as after a new epoch, but numbers keep their meaning.
new_revision(#state{generation = Generation, shared = Shared} = State) ->
    case (Generation + 1) band (1 bsl ?REVISION_BITS - 1) of
        0 ->
            new_epoch(State);
        _ ->
            topicwarden_audit_ring:set_generation(Shared, Generation + 1),
            State#state{generation = Generation + 1}
    end.

%% Send all that is in the ring now.
drain(#state{shared = Shared} = State) ->
    drain(topicwarden_audit_ring:head(Shared), State).

drain(Head, #state{shared = Shared, tail = Tail} = State) when Tail < Head ->
    {Events, Next, Late} =
        topicwarden_audit_ring:take(Shared, State#state.generation, Tail, min(?BATCH, Head - Tail)),
    topicwarden_audit_ring:release(Shared, Next),
    State1 = State#state{tail = Next},
    State2 =
        case Next - Tail of
            0 -> State1;
            Count -> send(Events, Count, Next =:= Head, defined_again(Late, State1#state{hole = none}))
        end,
    case topicwarden_audit_ring:hole(Shared, Next) of
        true -> hole(State2);
        false -> drain(Head, State2)
    end;
drain(_, State) ->
    State.

%% Events written before this epoch began, whose actor or resource it does not know.
defined_again([], State) ->
    State;
defined_again([Number | Numbers], #state{defined = Defined, before = Before} = State) ->
    case {Defined, Before} of
        {#{Number := _}, _} ->
            defined_again(Numbers, State);
        {_, #{Number := Definition}} ->
            ets:insert_new((State#state.shared)#shared.fresh, {Number, Definition}),
            defined_again(Numbers, State);
        _ ->
            defined_again(Numbers, State)
    end.

%% A slot reserved and not written: its writer was interrupted, or killed.
hole(#state{hole = none, tail = Tail} = State) ->
    State#state{hole = {Tail, now_ms()}};
hole(#state{hole = {Tail, Since}, tail = Tail} = State) ->
    case now_ms() - Since > ?HOLE_MILLISECONDS of
        true -> replace_ring(State);
        false -> State
    end;
hole(State) ->
    hole(State#state{hole = none}).

replace_ring(#state{shared = #shared{ring = Old} = OldShared, tail = Tail} = State) ->
    {Ring, Shift} = topicwarden_audit_ring:create(State#state.slots),
    Kept = [?GENERATION, ?NUMBERS, ?NAMES, ?MESSAGES, ?OVERFLOWN, ?FAILURES],
    [atomics:put(Ring, Word, atomics:get(Old, Word)) || Word <- Kept],
    %% Numbers given out of the old ring meanwhile must not be given again.
    atomics:add(Ring, ?NUMBERS, 1 bsl 20),
    Shared = OldShared#shared{ring = Ring, shift = Shift},
    persistent_term:put(?SHARED, Shared),
    Head = topicwarden_audit_ring:head(OldShared),
    State1 = salvage(Tail, Head, State),
    Dropped = atomics:get(Old, ?DROPPED),
    erlang:send_after(?HOLE_MILLISECONDS, self(), {retired, OldShared, Head + Dropped}),
    State1#state{shared = Shared, tail = 0, hole = none, dropped = State1#state.dropped + Dropped}.

%% What was written behind the hole; the rest is counted as dropped.
salvage(Head, Head, State) ->
    State;
salvage(Position, Head, #state{shared = Shared} = State) ->
    case topicwarden_audit_ring:take(Shared, State#state.generation, Position, min(?BATCH, Head - Position)) of
        {_, Position, _} ->
            salvage(Position + 1, Head, State#state{dropped = State#state.dropped + 1});
        {Events, Next, Late} ->
            salvage(Next, Head, send(Events, Next - Position, false, defined_again(Late, State)))
    end.

%%% What the event handler saw

recorded(_, #state{recording = false} = State) ->
    State;
recorded({connected, Infos, Time}, State) ->
    {Number, Definition} = connection(proplists:get_value(pid, Infos), Infos, State),
    ets:insert((State#state.shared)#shared.fresh, {Number, Definition}),
    begun(event(Time, Number, ?OP_CONNECT, {?ATTEMPTED, 0, 0}), State);
recorded({disconnected, Pid, Time}, #state{shared = #shared{connections = Connections, fresh = Fresh}} = State) ->
    case ets:take(Connections, Pid) of
        [{_, Number, Definition}] ->
            ets:insert(Fresh, {Number, Definition}),
            ended(event(Time, Number, ?OP_DISCONNECT, {?ATTEMPTED, 0, 0}), State);
        [] ->
            State
    end;
recorded({login_failed, Actor, Time}, #state{shared = Shared} = State) ->
    Number = topicwarden_audit_ring:new_number(Shared),
    ets:insert(Shared#shared.fresh, {Number, topicwarden_audit_wire:actor(Number, Actor)}),
    begun(event(Time, Number, ?OP_LOGIN, {?REFUSED, 0, ?PERMISSION_LOGIN}), State);
recorded({exchange_deleted, VHost, Name}, #state{shared = #shared{names = Names}} = State) ->
    ets:match_delete(Names, {{VHost, '_', Name, '_'}, '_', '_'}),
    ets:match_delete(Names, {{VHost, ?KIND_EXCHANGE, '_', Name}, '_', '_'}),
    new_revision(State);
recorded({changed, Type, Props, Time}, State) ->
    Name = binary:replace(atom_to_binary(Type), <<"_">>, <<".">>, [global]),
    definition(topicwarden_audit_wire:change(Time * 1000, Name, topicwarden_audit_events:pairs(Props)), State).

%% The number of a connection, and its definition. One of its processes may have numbered it already.
connection(Pid, Infos, #state{shared = #shared{connections = Connections} = Shared}) ->
    Number = topicwarden_audit_ring:new_number(Shared),
    Actor = topicwarden_audit_identity:connection(Infos, Shared#shared.started),
    ets:insert_new(Connections, {Pid, Number, topicwarden_audit_wire:actor(Number, Actor)}),
    [{_, First, Definition}] = ets:lookup(Connections, Pid),
    {First, Definition}.

event(Time, Number, Operation, Code) ->
    topicwarden_audit_wire:event(Time * 1000, Number, ?NO_RESOURCE, ?NO_SIZE, Operation, Code).

begun(Event, #state{begun = Events, event_count = Count} = State) ->
    full(State#state{begun = [Event | Events], event_count = Count + 1}).

ended(Event, #state{ended = Events, event_count = Count} = State) ->
    full(State#state{ended = [Event | Events], event_count = Count + 1}).

definition(Definition, #state{definitions = Definitions, definition_count = Count} = State) ->
    full(State#state{definitions = [Definition | Definitions], definition_count = Count + 1}).

full(#state{definition_count = Definitions, event_count = Events} = State) when Definitions + Events >= ?BATCH ->
    send(drain(State));
full(State) ->
    State.

%%% Notes

standing(Notes, #state{told = Told} = State) ->
    Told1 = maps:filter(fun(_, Detail) -> Detail =/= <<>> end, maps:merge(Told, Notes)),
    New = maps:filter(fun(Code, Detail) -> maps:get(Code, Told, <<>>) =/= Detail end, Told1),
    State1 = State#state{told = Told1},
    case State#state.recording of
        true -> maps:fold(fun note/3, State1, New);
        false -> State1
    end.

note(Code, Detail, #state{definitions = Definitions, definition_count = Count} = State) ->
    Note = topicwarden_audit_wire:note(erlang:system_time(microsecond), Code, Detail),
    State#state{definitions = [Note | Definitions], definition_count = Count + 1}.

%% Say what the broker's processes could not: exceptions that were swallowed, events that were not passed on.
overflow(#state{shared = #shared{ring = Ring}, overflown = Earlier, told = Told} = State) ->
    State1 =
        case atomics:get(Ring, ?OVERFLOWN) of
            Earlier -> State;
            Count -> note(<<"overflow">>, integer_to_binary(Count - Earlier), State#state{overflown = Count})
        end,
    case atomics:get(Ring, ?FAILURES) of
        0 ->
            State1;
        Failures ->
            Text = integer_to_binary(Failures),
            case Told of
                #{<<"failures">> := Text} -> State1;
                _ -> standing(#{<<"failures">> => Text}, State1)
            end
    end.

%%% Sending

send(State) -> send(<<>>, 0, true, State).

%% A batch with `Count` events from the ring, between those of connections that began and, when the ring was emptied,
%% of those that ended.
send(Events, Count, Emptied, State) ->
    #state{shared = #shared{ring = Ring}, dropped = DroppedBefore, sent = Sent} = State,
    {Ended, Kept} =
        case Emptied of
            true -> {State#state.ended, []};
            false -> {[], State#state.ended}
        end,
    Others = State#state.event_count - length(Kept),
    {Fresh, FreshCount, Defined} = fresh(State),
    Dropped = DroppedBefore + atomics:get(Ring, ?DROPPED),
    Header = #{
        first => State#state.first,
        boot => State#state.boot,
        epoch => ?EPOCH(State#state.generation) band (1 bsl ?EPOCH_BITS - 1),
        number => State#state.batch,
        first_event => Sent + Dropped,
        dropped => Dropped
    },
    Body = topicwarden_audit_wire:batch(
        Header,
        FreshCount + State#state.definition_count,
        [Fresh | lists:reverse(State#state.definitions)],
        Others + Count,
        [lists:reverse(State#state.begun), Events, lists:reverse(Ended)]
    ),
    publish(State#state.exchange, iolist_to_binary(Body)),
    State#state{
        batch = State#state.batch + 1,
        sent = Sent + Others + Count,
        first = false,
        last_sent = now_ms(),
        defined = Defined,
        definitions = [],
        definition_count = 0,
        begun = [],
        ended = Kept,
        event_count = length(Kept)
    }.

%% What was defined since the last batch. Whatever the events just taken refer to was put there before them.
fresh(#state{shared = #shared{fresh = Table}, defined = Defined}) ->
    fresh(ets:first(Table), Table, [], 0, Defined).

fresh('$end_of_table', _, Definitions, Count, Defined) ->
    {Definitions, Count, Defined};
fresh(Number, Table, Definitions, Count, Defined) ->
    case ets:take(Table, Number) of
        [{_, Definition}] ->
            fresh(ets:first(Table), Table, [Definition | Definitions], Count + 1, Defined#{Number => Definition});
        [] ->
            fresh(ets:first(Table), Table, Definitions, Count, Defined)
    end.

publish(Exchange, Body) ->
    Properties = #'P_basic'{content_type = <<"application/vnd.topicwarden.audit">>, delivery_mode = 1},
    try
        rabbit_basic:publish(Exchange, atom_to_binary(node()), Properties, Body)
    catch
        Class:Reason ->
            rabbit_log:warning("topicwarden_audit: a batch could not be published: ~0p", [{Class, Reason}])
    end.

%%% Settings

positive(Key, Default) ->
    case application:get_env(topicwarden_audit, Key) of
        {ok, Value} when is_integer(Value), Value > 0 -> Value;
        _ -> Default
    end.

now_ms() -> erlang:monotonic_time(millisecond).
