%% Records what happens, in the channel or connection it happens in: numbers for who and what, and a word in the ring.
%%
%% What refusals call swallows every exception; what the interceptor calls may raise, and it swallows. The module stays
%% loaded when the plugin is disabled, and then records nothing, because the generation is 0.
-module(topicwarden_audit_record).

-export([login_refused/2, operation/6, publish/6, refused/4, transaction/0, vhost_refused/3]).

-include_lib("rabbit_common/include/rabbit.hrl").
-include("topicwarden_audit.hrl").

%% Names in the table of one epoch before the sink has to begin another; it does so at a quarter of it.
-define(MOST_NAMES, 131072).

%% In the process dictionary of a channel: the last key published to, the channel's number, its last operation, and
%% whether it is transactional.
-define(MEMO, '$topicwarden_audit_memo').
-define(ACTOR, '$topicwarden_audit_actor').
-define(LAST, '$topicwarden_audit_last').
-define(TRANSACTION, '$topicwarden_audit_transaction').

%% A publish of `Size` bytes with `Flags` to `Key` in `Exchange`; its further keys are in `CarbonCopies`.
-spec publish(#shared{}, pos_integer(), binary(), {binary(), binary()}, {non_neg_integer(), byte()}, [binary()]) -> ok.
publish(Shared, Generation, VHost, {Exchange, Key} = Name, {Size, Flags} = Sized, CarbonCopies) ->
    case get(?MEMO) of
        {Generation, Exchange, Key, Pair, Transaction} ->
            Rest = topicwarden_audit_ring:rest(Size, ?OP_PUBLISH, {?ATTEMPTED, Flags bor Transaction, 0}, Generation),
            topicwarden_audit_ring:put(Shared, os:system_time(microsecond), Pair, Rest, 0);
        _ ->
            slow_publish(Shared, Generation, VHost, Name, Sized)
    end,
    case CarbonCopies of
        [] -> ok;
        _ -> carbon_copies(Shared, Generation, VHost, Exchange, {Size, Flags bor ?FLAG_CARBON_COPY}, CarbonCopies)
    end,
    case get(?LAST) of
        ?OP_PUBLISH -> ok;
        _ -> put(?LAST, ?OP_PUBLISH), ok
    end.

slow_publish(Shared, Generation, VHost, {Exchange, Key} = Name, {Size, Flags}) ->
    Transaction = transaction_flag(),
    {Pair, Outcome} = pair(Shared, Generation, VHost, ?KIND_KEY, Name),
    case Outcome of
        ?ATTEMPTED when byte_size(Key) =< ?LONGEST_TEXT ->
            put(?MEMO, {Generation, binary:copy(Exchange), binary:copy(Key), Pair, Transaction});
        _ ->
            ok
    end,
    Rest = topicwarden_audit_ring:rest(Size, ?OP_PUBLISH, {Outcome, Flags bor Transaction, 0}, Generation),
    topicwarden_audit_ring:put(Shared, os:system_time(microsecond), Pair, Rest, 0).

carbon_copies(Shared, Generation, VHost, Exchange, {Size, Flags}, Keys) ->
    Transaction = transaction_flag(),
    Time = os:system_time(microsecond),
    [
        begin
            {Pair, Outcome} = pair(Shared, Generation, VHost, ?KIND_KEY, {Exchange, Key}),
            Rest = topicwarden_audit_ring:rest(Size, ?OP_PUBLISH, {Outcome, Flags bor Transaction, 0}, Generation),
            topicwarden_audit_ring:put(Shared, Time, Pair, Rest, 0)
        end
     || Key <- Keys
    ],
    ok.

%% Any other operation on `Name` ({Within, Name}, or none) of `Kind`.
-spec operation(#shared{}, pos_integer(), binary(), byte(), 0..4, {{binary(), binary()} | none, byte()}) -> ok.
operation(Shared, Generation, VHost, Operation, Kind, {Name, Flags}) ->
    {Pair, Outcome} =
        case Name of
            none -> {(actor(Shared, Generation) bsl 32) bor ?NO_RESOURCE, ?ATTEMPTED};
            _ -> pair(Shared, Generation, VHost, Kind, Name)
        end,
    Rest = topicwarden_audit_ring:rest(?NO_SIZE, Operation, {Outcome, Flags bor transaction_flag(), 0}, Generation),
    put(?LAST, Operation),
    topicwarden_audit_ring:put(Shared, os:system_time(microsecond), Pair, Rest, 0).

%% From now on what this channel publishes may be rolled back: a transactional channel never stops being one.
-spec transaction() -> ok.
transaction() ->
    put(?TRANSACTION, ?FLAG_TRANSACTION),
    erase(?MEMO),
    ok.

transaction_flag() ->
    case get(?TRANSACTION) of
        ?FLAG_TRANSACTION -> ?FLAG_TRANSACTION;
        _ -> 0
    end.

%% A backend refused `Permission` on `Resource`; `Context` has the routing key of a topic permission.
-spec refused(binary(), #resource{}, configure | write | read, term()) -> ok.
refused(User, Resource, Permission, Context) ->
    topicwarden_audit_ring:recording(fun(Shared, Generation) ->
        refusal(Shared, Generation, User, Resource, Permission, Context)
    end).

refusal(Shared, Generation, User, #resource{virtual_host = VHost} = Resource, Permission, Context) ->
    {Kind, Name, Flags} = refused_name(Resource, Permission, Context),
    {Actor, Operation} =
        case refused_in_channel(Shared, Generation) of
            none -> {outside(Shared, #actor{user = User, vhost = VHost}), any(Permission)};
            Found -> Found
        end,
    {Number, _} = resource(Shared, Generation, VHost, Kind, Name),
    Code = {?REFUSED, Flags, permission(Permission)},
    Rest = topicwarden_audit_ring:rest(?NO_SIZE, operation_of(Operation, Permission), Code, Generation),
    topicwarden_audit_ring:put(Shared, os:system_time(microsecond), (Actor bsl 32) bor Number, Rest, 0).

refused_name(#resource{kind = topic, name = Exchange}, Permission, Context) ->
    Kind =
        case Permission of
            read -> ?KIND_BINDING;
            _ -> ?KIND_KEY
        end,
    {Kind, {Exchange, maps:get(routing_key, Context, <<>>)}, ?FLAG_TOPIC};
refused_name(#resource{kind = exchange, name = Exchange}, _, _) ->
    {?KIND_EXCHANGE, {<<>>, Exchange}, 0};
refused_name(#resource{name = Queue}, _, _) ->
    {?KIND_QUEUE, {<<>>, Queue}, 0}.

%% The operation refused is the channel's last one: it was checked in the same process right afterwards.
refused_in_channel(Shared, Generation) ->
    case ets:member(channel_created, self()) of
        true -> {actor(Shared, Generation), get(?LAST)};
        false -> none
    end.

operation_of(Operation, _) when is_integer(Operation) -> Operation;
operation_of(_, Permission) -> any(Permission).

any(write) -> ?OP_ANY_PUBLISH;
any(read) -> ?OP_ANY_SUBSCRIBE;
any(configure) -> ?OP_ANY_CONFIGURE.

permission(configure) -> ?PERMISSION_CONFIGURE;
permission(write) -> ?PERMISSION_WRITE;
permission(read) -> ?PERMISSION_READ.

%% A backend refused a user a virtual host. The management plugin asks about every virtual host only to know which to
%% list (rabbit_mgmt_util, 3.10.8): what is asked in a web request is no attempt to connect.
-spec vhost_refused(binary(), binary(), term()) -> ok.
vhost_refused(User, VHost, Context) ->
    topicwarden_audit_ring:recording(fun(Shared, Generation) ->
        case topicwarden_audit_identity:connecting(known(Context)) of
            no -> ok;
            #actor{protocol = <<"http">>} -> ok;
            Actor -> refused_before(Shared, Generation, Actor#actor{user = User, vhost = VHost}, ?OP_CONNECT)
        end
    end).

%% The only backend there is refused a login. Of AMQP and streams the broker's own event knows more, and is recorded.
-spec login_refused(binary(), [{atom(), term()}]) -> ok.
login_refused(User, Properties) ->
    topicwarden_audit_ring:recording(fun(Shared, Generation) ->
        ClientId = proplists:get_value(client_id, Properties, none),
        VHost = topicwarden_audit_identity:text(proplists:get_value(vhost, Properties, <<>>)),
        case topicwarden_audit_identity:connecting(#{<<"client_id">> => ClientId}) of
            no -> ok;
            #actor{protocol = <<"amqp">>} -> ok;
            #actor{protocol = <<"stream">>} -> ok;
            Actor -> refused_before(Shared, Generation, Actor#actor{user = User, vhost = VHost}, ?OP_LOGIN)
        end
    end).

%% Refused before there was a connection.
refused_before(Shared, Generation, Actor, Operation) ->
    Permission =
        case Operation of
            ?OP_LOGIN -> ?PERMISSION_LOGIN;
            ?OP_CONNECT -> ?PERMISSION_VHOST
        end,
    Number = topicwarden_audit_ring:new_number(Shared),
    define(Shared, Number, topicwarden_audit_wire:actor(Number, Actor)),
    Rest = topicwarden_audit_ring:rest(?NO_SIZE, Operation, {?REFUSED, 0, Permission}, Generation),
    Pair = (Number bsl 32) bor ?NO_RESOURCE,
    topicwarden_audit_ring:put(Shared, os:system_time(microsecond), Pair, Rest, 0).

known(#{} = Context) -> Context;
known(_) -> #{}.

%% The number of an actor that is no channel: its connection, when that can be told, else what is known of it.
outside(Shared, Known) ->
    case topicwarden_audit_identity:connection_pid() of
        none ->
            Number = topicwarden_audit_ring:new_number(Shared),
            define(Shared, Number, topicwarden_audit_wire:actor(Number, with_protocol(Known))),
            Number;
        Pid ->
            case ets:lookup(Shared#shared.connections, Pid) of
                [{_, Number, Definition}] ->
                    define(Shared, Number, Definition),
                    Number;
                [] ->
                    Number = topicwarden_audit_ring:new_number(Shared),
                    [{_, Infos}] = ets:lookup(connection_created, Pid),
                    Actor = topicwarden_audit_identity:connection(Infos, Shared#shared.started),
                    Definition = topicwarden_audit_wire:actor(Number, Actor),
                    ets:insert_new(Shared#shared.connections, {Pid, Number, Definition}),
                    [{_, First, Numbered}] = ets:lookup(Shared#shared.connections, Pid),
                    define(Shared, First, Numbered),
                    First
            end
    end.

with_protocol(#actor{protocol = <<>>} = Actor) ->
    case get('$initial_call') of
        {cowboy_stream_h, _, _} -> Actor#actor{protocol = <<"http">>};
        _ -> Actor
    end;
with_protocol(Actor) ->
    Actor.

%% The channel's number. It keeps it for its life and defines it again in every epoch it acts in.
actor(Shared, Generation) ->
    Epoch = ?EPOCH(Generation),
    case get(?ACTOR) of
        {Epoch, Number} ->
            Number;
        {Earlier, Number} when ?INSTANCE(Earlier) =:= ?INSTANCE(Epoch) ->
            define_channel(Shared, Epoch, Number);
        _ ->
            define_channel(Shared, Epoch, topicwarden_audit_ring:new_number(Shared))
    end.

define_channel(Shared, Epoch, Number) ->
    Actor = topicwarden_audit_identity:describe(self(), Shared#shared.started),
    define(Shared, Number, topicwarden_audit_wire:actor(Number, Actor)),
    put(?ACTOR, {Epoch, Number}),
    Number.

pair(Shared, Generation, VHost, Kind, Name) ->
    Actor = actor(Shared, Generation),
    {Number, Outcome} = resource(Shared, Generation, VHost, Kind, Name),
    {(Actor bsl 32) bor Number, Outcome}.

%% The number of a name, and whether what it is in exists. Only a name in something that exists is kept: what does not
%% exist may come into being at any time, and a publish that was routed must not be said to have gone nowhere.
resource(Shared, Generation, VHost, Kind, {Within, Name}) ->
    Epoch = ?EPOCH(Generation),
    Key = {VHost, Kind, Within, cut(Name)},
    case ets:lookup(Shared#shared.names, Key) of
        [{_, Epoch, Number}] -> {Number, ?ATTEMPTED};
        _ -> new_resource(Shared, Epoch, Key)
    end.

new_resource(#shared{ring = Ring, names = Names} = Shared, Epoch, {VHost, Kind, Within, Name}) ->
    {Type, Outcome} = exchange(Kind, VHost, Within, Name),
    case atomics:add_get(Ring, ?NAMES, 1) > ?MOST_NAMES of
        true ->
            topicwarden_audit_ring:drop(Shared),
            throw(too_many_names);
        false ->
            Number = topicwarden_audit_ring:new_number(Shared),
            %% Copies: a name is a part of its frame, which it would keep alive.
            Key = {VHost, Kind, binary:copy(Within), binary:copy(Name)},
            Definition = topicwarden_audit_wire:resource(Number, Kind, Type, within(Kind, Within), shown(Kind, Name)),
            define(Shared, Number, Definition),
            Outcome =:= ?ATTEMPTED andalso ets:insert(Names, {Key, Epoch, Number}),
            {Number, Outcome}
    end.

%% The default exchange has no name; permissions and the stream call it amq.default.
within(Kind, <<>>) when Kind =:= ?KIND_KEY; Kind =:= ?KIND_BINDING -> <<"amq.default">>;
within(_, Within) -> Within.

shown(?KIND_EXCHANGE, <<>>) -> <<"amq.default">>;
shown(_, Name) -> Name.

exchange(?KIND_QUEUE, _, _, _) ->
    {none, ?ATTEMPTED};
exchange(?KIND_EXCHANGE, VHost, _, Name) ->
    case look_up(VHost, Name) of
        {ok, #exchange{type = Type}} -> {Type, ?ATTEMPTED};
        _ -> {none, ?ATTEMPTED}
    end;
exchange(Kind, VHost, Within, _) ->
    case look_up(VHost, Within) of
        {ok, #exchange{internal = true, type = Type}} when Kind =:= ?KIND_KEY -> {Type, ?NO_EXCHANGE};
        {ok, #exchange{type = Type}} -> {Type, ?ATTEMPTED};
        _ -> {none, ?NO_EXCHANGE}
    end.

look_up(VHost, <<"amq.default">>) -> look_up(VHost, <<>>);
look_up(VHost, Name) -> rabbit_exchange:lookup(#resource{virtual_host = VHost, kind = exchange, name = Name}).

define(#shared{fresh = Fresh}, Number, Definition) ->
    ets:insert(Fresh, {Number, Definition}),
    ok.

cut(<<Name:?LONGEST_TEXT/binary, _, _/binary>>) -> Name;
cut(Name) -> Name.
