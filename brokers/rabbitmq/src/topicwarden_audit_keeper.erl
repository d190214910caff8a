%% Puts the plugin's hands into the broker, watches that they stay there, and takes them out again: the interceptor, the
%% stand-ins of the authorisation backends, the event handler, the exchange. Everything that may wait for another
%% process of the broker is done here, so that the sink never waits.
-module(topicwarden_audit_keeper).

-behaviour(gen_server).

-export([load_resident/0, look/0, setting/2, start_link/0, undo/0]).
-export([handle_call/3, handle_cast/2, handle_info/2, init/1, terminate/2]).

-include_lib("rabbit_common/include/rabbit.hrl").

-define(PERIOD, 1000).  % milliseconds

%% Called from channels and connections that outlive the plugin.
-define(RESIDENT, [
    topicwarden_audit_backend,
    topicwarden_audit_backend_1,
    topicwarden_audit_backend_2,
    topicwarden_audit_backend_3,
    topicwarden_audit_backend_4,
    topicwarden_audit_backend_5,
    topicwarden_audit_backend_6,
    topicwarden_audit_backend_7,
    topicwarden_audit_backend_8,
    topicwarden_audit_identity,
    topicwarden_audit_interceptor,
    topicwarden_audit_record,
    topicwarden_audit_ring,
    topicwarden_audit_wire
]).

-record(state, {
    exchange :: rabbit_types:r(exchange),
    usable = false :: boolean(),      % the exchange is there and is ours
    complained = none :: term(),      % what was last written to the log about it
    before :: #{binary() => binary()} % notes about what was there when we came
}).

start_link() -> gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% Look at the bindings now, rather than with the next period; called by the event handler.
-spec look() -> ok.
look() ->
    ?MODULE ! look,
    ok.

%% Load the modules that stay when the plugin goes, or a newer version of them.
-spec load_resident() -> ok.
load_resident() ->
    lists:foreach(fun load/1, ?RESIDENT).

load(Module) ->
    case code:is_loaded(Module) of
        false ->
            {module, Module} = code:ensure_loaded(Module),
            ok;
        _ ->
            File = code:where_is_file(atom_to_list(Module) ++ ".beam"),
            case beam_lib:md5(File) =:= {ok, {Module, Module:module_info(md5)}} of
                true -> ok;
                false -> code:soft_purge(Module) andalso code:load_file(Module), ok
            end
    end.

%% A name from the application's environment, written as a string or as a binary; anything else counts as not written.
-spec setting(atom(), binary()) -> binary().
setting(Key, Default) ->
    case application:get_env(topicwarden_audit, Key) of
        {ok, Value} when is_binary(Value) -> Value;
        {ok, [_ | _] = Value} -> name(Value, Default);
        _ -> Default
    end.

name(Value, Default) ->
    try unicode:characters_to_binary(Value) of
        Name when is_binary(Name) -> Name;
        _ -> Default
    catch
        _:_ -> Default
    end.

%% Take everything out of the broker, whether or not it is in.
-spec undo() -> ok.
undo() ->
    safely(fun topicwarden_audit_sink:stop_recording/0),
    safely(fun topicwarden_audit_interceptor:unregister/0),
    safely(fun topicwarden_audit_backend:unwrap/0),
    safely(fun topicwarden_audit_events:remove/0),
    ok.

init([]) ->
    process_flag(trap_exit, true),
    VHost = setting(vhost, <<"/">>),
    Exchange = setting(exchange, <<"amq.topicwarden.audit">>),
    Before = #{
        <<"channels-before">> => count(fun() -> length(rabbit_channel:list_local()) end),
        <<"connections-before">> => count(fun() -> ets:info(connection_created, size) end)
    },
    safely(fun topicwarden_audit_events:add/0),
    safely(fun topicwarden_audit_interceptor:register/0),
    State = examine(#state{exchange = rabbit_misc:r(VHost, exchange, Exchange), before = Before}),
    erlang:send_after(?PERIOD, self(), period),
    {ok, State}.

handle_call(_, _, State) -> {reply, ok, State}.

handle_cast(_, State) -> {noreply, State}.

handle_info(period, State) ->
    erlang:send_after(?PERIOD, self(), period),
    {noreply, examine(State)};
handle_info(look, State) ->
    flush_looks(),
    {noreply, examine(State)};
handle_info({gen_event_EXIT, topicwarden_audit_events, Reason}, State) ->
    rabbit_log:warning("topicwarden_audit: event handler ended (~ts), started again", [printed(Reason)]),
    safely(fun topicwarden_audit_events:add/0),
    {noreply, State};
handle_info(_, State) ->
    {noreply, State}.

terminate(Reason, #state{exchange = Exchange}) when Reason =:= shutdown; Reason =:= normal ->
    undo(),
    topicwarden_audit_sink:finish(),
    case other_nodes() of
        false -> safely(fun() -> rabbit_exchange:delete(Exchange, false, <<"topicwarden_audit">>) end);
        true -> ok
    end;
terminate(_, _) ->
    %% The next keeper puts everything in its place again, and the readers stay bound meanwhile.
    ok.

%% One look at everything that may have changed.
examine(State) ->
    State1 = exchange(State),
    Bindings =
        case State1#state.usable of
            true -> count_bindings(State1#state.exchange);
            false -> []
        end,
    topicwarden_audit_sink:bindings(Bindings),
    Left = safely(fun topicwarden_audit_backend:wrap/0),
    Others = safely(fun topicwarden_audit_interceptor:others/0),
    topicwarden_audit_sink:standing((State#state.before)#{
        <<"backend">> => described(Left),
        <<"overlap">> => iolist_to_binary(lists:join("; ", [described_interceptor(Other) || Other <- list(Others)]))
    }),
    State1.

%% Make sure that the exchange is there, and is what the reader trusts: internal, so that nobody can publish to it.
exchange(#state{exchange = #resource{virtual_host = VHost, name = Name} = Exchange} = State) ->
    Found =
        try
            rabbit_vhost:exists(VHost) andalso declared(Exchange)
        catch
            Class:Reason -> {Class, Reason}
        end,
    case Found of
        {ok, #exchange{type = fanout, internal = true, durable = false}} ->
            State#state{usable = true, complained = none};
        _ ->
            Complaint =
                case Found of
                    false -> "there is no such virtual host";
                    {ok, _} -> "an exchange of that name exists that is not ours (internal, fanout, not durable)";
                    _ -> lists:flatten(printed(Found))
                end,
            State#state.complained =:= Complaint orelse
                rabbit_log:warning("topicwarden_audit: no stream through exchange '~ts' in virtual host '~ts': ~ts", [
                    Name, VHost, Complaint
                ]),
            State#state{usable = false, complained = Complaint}
    end.

declared(Exchange) ->
    case rabbit_exchange:lookup(Exchange) of
        {error, not_found} ->
            rabbit_exchange:declare(Exchange, fanout, false, false, true, [], <<"topicwarden_audit">>),
            rabbit_exchange:lookup(Exchange);
        Found ->
            Found
    end.

count_bindings(Exchange) ->
    Bindings = safely(fun() -> rabbit_binding:list_for_source(Exchange) end),
    lists:usort([
        erlang:phash2({Destination, Key}, 1 bsl 32)
     || #binding{destination = Destination, key = Key} <- list(Bindings)
    ]).

%% Whether another node of the cluster still publishes to the exchange.
other_nodes() ->
    lists:any(
        fun(Node) -> is_pid(rpc:call(Node, erlang, whereis, [topicwarden_audit_sink], 2000)) end,
        list(safely(fun rabbit_nodes:all_running/0)) -- [node()]
    ).

described(Left) -> iolist_to_binary([io_lib:format("~0p ", [Entry], [{chars_limit, 200}]) || Entry <- list(Left)]).

described_interceptor({Module, Methods}) ->
    [atom_to_list(Module), ": ", lists:join(", ", [atom_to_list(Method) || Method <- Methods])].

count(Fun) ->
    case safely(Fun) of
        Count when is_integer(Count), Count > 0 -> integer_to_binary(Count);
        _ -> <<>>
    end.


list(List) when is_list(List) -> List;
list(_) -> [].

flush_looks() ->
    receive
        look -> flush_looks()
    after 0 -> ok
    end.

safely(Fun) ->
    try
        Fun()
    catch
        Class:Reason:Stack ->
            Where = [{Module, Name} || {Module, Name, _, _} <- lists:sublist(Stack, 3)],
            rabbit_log:warning("topicwarden_audit: ~ts", [printed({Class, Reason, Where})]),
            failed
    end.

printed(Term) -> io_lib:format("~0tp", [Term], [{chars_limit, 500}]).
