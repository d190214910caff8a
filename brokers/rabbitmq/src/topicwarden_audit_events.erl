%% Listens to RabbitMQ's internal events: connections, logins that failed, and every change of what the broker has or
%% grants. Runs in the broker's event process, so it only picks and passes on, and never more than the sink can take.
-module(topicwarden_audit_events).

-behaviour(gen_event).

-export([add/0, pairs/1, remove/0]).
-export([handle_call/2, handle_event/2, handle_info/2, init/1, terminate/2]).

-include_lib("rabbit_common/include/rabbit.hrl").
-include("topicwarden_audit.hrl").

%% Messages on their way to the sink.
-define(MOST_MESSAGES, 20000).
-define(MOST_PAIRS, 40).

%% The caller is told by {gen_event_EXIT, Module, Reason} when the handler goes.
add() ->
    case lists:member(?MODULE, gen_event:which_handlers(rabbit_event)) of
        true -> gen_event:delete_handler(rabbit_event, ?MODULE, []);
        false -> ok
    end,
    ok = gen_event:add_sup_handler(rabbit_event, ?MODULE, []).

remove() -> gen_event:delete_handler(rabbit_event, ?MODULE, []).

init([]) -> {ok, []}.

handle_call(_, State) -> {ok, ok, State}.

handle_info(_, State) -> {ok, State}.

terminate(_, _) -> ok.

handle_event(#event{type = Type, props = Props, reference = none, timestamp = Time}, State) ->
    try
        seen(Type, Props, Time)
    catch
        _:_ -> topicwarden_audit_ring:failed(topicwarden_audit_ring:current())
    end,
    {ok, State};
handle_event(_, State) ->
    {ok, State}.

seen(connection_created, Props, Time) ->
    Keys = [
        pid, name, user, vhost, protocol, peer_host, peer_port, ssl, peer_cert_subject, auth_mechanism, variable_map,
        user_provided_name, connected_at
    ],
    pass({connected, [Pair || {Key, _} = Pair <- Props, lists:member(Key, Keys)], Time});
seen(connection_closed, Props, Time) ->
    pass({disconnected, proplists:get_value(pid, Props), Time});
seen(user_authentication_failure, Props, Time) ->
    %% Of a direct connection the stand-in of the only backend knows more, and has recorded it.
    case proplists:get_value(connection_type, Props) =:= direct andalso topicwarden_audit_backend:is_only_one() of
        true -> ok;
        false -> pass({login_failed, topicwarden_audit_identity:claimed(Props), Time})
    end;
seen(Type, Props, Time) ->
    case is_change(Type) of
        true ->
            topology(Type, Props),
            pass({changed, Type, Props, Time});
        false ->
            ok
    end.

topology(Type, Props) when Type =:= binding_created; Type =:= binding_deleted ->
    proplists:get_value(source_name, Props) =:= stream_exchange() andalso topicwarden_audit_keeper:look();
topology(exchange_deleted, Props) ->
    case proplists:get_value(name, Props) of
        #resource{virtual_host = VHost, name = Name} ->
            pass({exchange_deleted, VHost, Name}),
            Name =:= stream_exchange() andalso topicwarden_audit_keeper:look();
        _ ->
            ok
    end;
topology(_, _) ->
    ok.

stream_exchange() -> application:get_env(topicwarden_audit, exchange, none).

%% Every change is passed on only while somebody reads, and only as far as the sink keeps up.
pass(Message) ->
    case topicwarden_audit_ring:current() of
        off ->
            ok;
        #shared{ring = Ring} = Shared ->
            case topicwarden_audit_ring:generation(Shared) of
                0 ->
                    ok;
                _ ->
                    case atomics:add_get(Ring, ?MESSAGES, 1) > ?MOST_MESSAGES of
                        true ->
                            atomics:sub(Ring, ?MESSAGES, 1),
                            atomics:add(Ring, ?OVERFLOWN, 1);
                        false ->
                            topicwarden_audit_sink:passed(Message)
                    end
            end
    end.

is_change(queue_created) -> true;
is_change(queue_deleted) -> true;
is_change(exchange_created) -> true;
is_change(exchange_deleted) -> true;
is_change(binding_created) -> true;
is_change(binding_deleted) -> true;
is_change(permission_created) -> true;
is_change(permission_deleted) -> true;
is_change(topic_permission_created) -> true;
is_change(topic_permission_deleted) -> true;
is_change(user_created) -> true;
is_change(user_deleted) -> true;
is_change(user_password_changed) -> true;
is_change(user_password_cleared) -> true;
is_change(user_tags_set) -> true;
is_change(user_limits_set) -> true;
is_change(user_limits_cleared) -> true;
is_change(vhost_created) -> true;
is_change(vhost_deleted) -> true;
is_change(vhost_down) -> true;
is_change(vhost_updated) -> true;
is_change(vhost_tags_set) -> true;
is_change(vhost_limits_set) -> true;
is_change(vhost_limits_cleared) -> true;
is_change(policy_set) -> true;
is_change(policy_cleared) -> true;
is_change(operator_policy_set) -> true;
is_change(operator_policy_cleared) -> true;
is_change(parameter_set) -> true;
is_change(parameter_cleared) -> true;
is_change(_) -> false.

%% The pairs of an event, as text. The value of a parameter is left out: those of shovels and federation upstreams hold
%% passwords (rabbit_runtime_parameters puts it in the event, 3.10.8).
-spec pairs([{atom(), term()}]) -> [{binary(), binary()}].
pairs(Props) ->
    Shown = [Pair || {Key, _} = Pair <- Props, not secret(Key)],
    lists:sublist(lists:append([pair(Key, Value) || {Key, Value} <- Shown]), ?MOST_PAIRS).

secret(value) -> true;
secret(password) -> true;
secret(password_hash) -> true;
secret(hashing_algorithm) -> true;
secret(_) -> false.

pair(Key, #resource{virtual_host = VHost, name = Name}) ->
    [{topicwarden_audit_identity:text(Key), Name}, {<<"vhost">>, topicwarden_audit_identity:text(VHost)}];
pair(Key, Value) ->
    [{topicwarden_audit_identity:text(Key), value(Value)}].

value([Element | _] = List) when not is_integer(Element) ->
    iolist_to_binary(lists:join(<<",">>, [element_text(Item) || Item <- lists:sublist(List, ?MOST_PAIRS)]));
value(Value) ->
    topicwarden_audit_identity:text(Value).

element_text({Key, Value}) -> [topicwarden_audit_identity:text(Key), <<"=">>, value(Value)];
element_text({Key, _Type, Value}) -> [topicwarden_audit_identity:text(Key), <<"=">>, value(Value)];
element_text(Value) -> topicwarden_audit_identity:text(Value).
