%% Who acts: what RabbitMQ keeps of its connections and channels, turned into an identity. Everything here was set by
%% the broker but for the client id and the provided name, which are claims.
%%
%% The tables `connection_created` and `channel_created` are written by the connection and by the channel themselves,
%% before the first operation (rabbit_core_metrics, 3.10.8), so looking there depends on no event having arrived.
-module(topicwarden_audit_identity).

-export([address/1, claimed/1, connecting/1, connection/2, connection_pid/0, describe/2, text/1]).

-include("topicwarden_audit.hrl").

%% The open channel `Pid`; `Started`: when the plugin started, in milliseconds.
-spec describe(pid(), integer()) -> #actor{}.
describe(Pid, Started) ->
    [{_, Channel}] = ets:lookup(channel_created, Pid),
    Actor =
        case ets:lookup(connection_created, proplists:get_value(connection, Channel)) of
            [{_, Infos}] -> connection(Infos, Started);
            [] -> #actor{}
        end,
    Actor#actor{
        channel = proplists:get_value(number, Channel, 0) band 16#FFFF,
        user = text(proplists:get_value(user, Channel, Actor#actor.user)),
        vhost = text(proplists:get_value(vhost, Channel, Actor#actor.vhost))
    }.

%% A connection, from the pairs of `connection_created`.
-spec connection([{atom(), term()}], integer()) -> #actor{}.
connection(Infos, Started) ->
    Get = fun(Key) -> proplists:get_value(Key, Infos, <<>>) end,
    #actor{
        port = port(Get(peer_port)),
        tls = Get(ssl) =:= true,
        before = before(Get(connected_at), Started),
        connection = text(Get(name)),
        user = text(Get(user)),
        vhost = text(Get(vhost)),
        protocol = protocol(Get(protocol)),
        client_id = client_id(Get(variable_map)),
        address = address(Get(peer_host)),
        subject = text(Get(peer_cert_subject)),
        mechanism = text(Get(auth_mechanism)),
        provided_name = text(Get(user_provided_name))
    }.

%% A login that failed, from the pairs of `user_authentication_failure`: the user is what the client claimed. For direct
%% connections (MQTT, STOMP) the event says nothing else (3.10.8).
-spec claimed([{atom(), term()}]) -> #actor{}.
claimed(Props) ->
    Actor = connection(Props, 0),
    Actor#actor{
        connection = text(proplists:get_value(connection_name, Props, <<>>)),
        user = text(proplists:get_value(name, Props, <<>>))
    }.

%% The connection the calling process serves: itself (AMQP, streams), or the one it is linked to (the readers of MQTT
%% and STOMP link to the direct connection they open).
-spec connection_pid() -> pid() | none.
connection_pid() ->
    case ets:member(connection_created, self()) of
        true ->
            self();
        false ->
            {links, Links} = process_info(self(), links),
            case [Pid || Pid <- Links, is_pid(Pid), ets:member(connection_created, Pid)] of
                [Pid] -> Pid;
                _ -> none
            end
    end.

%% Who is logging in in the calling process, before there is a connection; `no` when nobody is. `Known` is what the
%% broker tells the backend: #{peeraddr, <<"client_id">>}.
-spec connecting(map()) -> #actor{} | no.
connecting(Known) ->
    Actor = #actor{address = address(maps:get(peeraddr, Known, none)), client_id = client_id(Known)},
    case {get(process_name), get('$initial_call'), process_info(self(), initial_call)} of
        {{rabbit_reader, Name}, _, _} ->
            {Connection, Port} = connection_name(Name),
            Actor#actor{connection = Connection, port = Port, protocol = <<"amqp">>};
        {_, {rabbit_stream_reader, _, _}, _} ->
            Actor#actor{protocol = <<"stream">>};
        {_, _, {initial_call, {erpc, _, _}}} ->
            direct(Actor);
        {_, {cowboy_stream_h, _, _}, _} ->
            Actor#actor{protocol = <<"http">>};
        _ ->
            no
    end.

%% Direct connections (MQTT, STOMP, the management plugin's own) log in through rpc:call, so in a process whose parent
%% is the connection. That is called by the reader, which is linked to its socket. All of them are waiting for us. Seen
%% with 3.10.8 on Erlang/OTP 25; what is not so leaves the identity as the broker told it.
direct(Actor) ->
    try
        {parent, Connection} = process_info(self(), parent),
        {monitored_by, Callers} = process_info(Connection, monitored_by),
        [{Reader, Socket}] = [
            {Pid, Port}
         || Pid <- Callers, is_pid(Pid), {links, Links} <- [process_info(Pid, links)], Port <- Links, is_port(Port)
        ],
        {ok, {Address, Port}} = inet:peername(Socket),
        Actor#actor{address = address(Address), port = port(Port), protocol = reader(Reader)}
    catch
        _:_ when Actor#actor.client_id =/= <<>> -> Actor#actor{protocol = <<"mqtt">>};
        _:_ -> Actor#actor{protocol = <<"direct">>}
    end.

reader(Reader) ->
    case proc_lib:translate_initial_call(Reader) of
        {rabbit_mqtt_reader, _, _} -> <<"mqtt">>;
        {rabbit_stomp_reader, _, _} -> <<"stomp">>
    end.

%% "127.0.0.1:49242 -> 127.0.0.1:5672", then " - " and the name the client gave itself.
connection_name(Name) ->
    [Peer, Rest] = binary:split(Name, <<" -> ">>),
    [Server | _] = binary:split(Rest, <<" - ">>),
    Port = binary_to_integer(lists:last(binary:split(Peer, <<":">>, [global]))),
    {<<Peer/binary, " -> ", Server/binary>>, Port}.

-spec address(term()) -> binary().
address(Address) when is_tuple(Address) ->
    case inet:ntoa(Address) of
        {error, _} -> <<>>;
        Text -> list_to_binary(Text)
    end;
address(_) ->
    <<>>.

%% Text of whatever the broker keeps a name as; never fails.
-spec text(term()) -> binary().
text(Text) when is_binary(Text) -> binary:copy(Text);
text(none) -> <<>>;
text(undefined) -> <<>>;
text('') -> <<>>;
text(unknown) -> <<>>;
text(Atom) when is_atom(Atom) -> atom_to_binary(Atom);
text(Number) when is_integer(Number) -> integer_to_binary(Number);
text([]) -> <<>>;
text(List) when is_list(List) ->
    try unicode:characters_to_binary(List) of
        Text when is_binary(Text) -> Text;
        _ -> printed(List)
    catch
        _:_ -> printed(List)
    end;
text(Pid) when is_pid(Pid) -> list_to_binary(pid_to_list(Pid));
text(Term) -> printed(Term).

printed(Term) ->
    unicode:characters_to_binary(io_lib:format("~0tp", [Term], [{chars_limit, ?LONGEST_TEXT}])).

port(Port) when is_integer(Port), Port > 0, Port < 65536 -> Port;
port(_) -> 0.

before(At, Started) when is_integer(At) -> At < Started;
before(_, _) -> false.

client_id(#{<<"client_id">> := ClientId}) when is_binary(ClientId) -> binary:copy(ClientId);
client_id(_) -> <<>>.

protocol({0, 9, 1}) -> <<"amqp">>;
protocol({0, 8, 0}) -> <<"amqp">>;
protocol({Name, _}) -> protocol_name(text(Name));
protocol(_) -> <<>>.

protocol_name(<<"MQTT">>) -> <<"mqtt">>;
protocol_name(<<"Web MQTT">>) -> <<"mqtt">>;
protocol_name(<<"STOMP">>) -> <<"stomp">>;
protocol_name(<<"Web STOMP">>) -> <<"stomp">>;
protocol_name(<<"AMQP">>) -> <<"amqp10">>;
protocol_name(<<"Direct">>) -> <<"direct">>;
protocol_name(<<"stream">>) -> <<"stream">>;
protocol_name(Name) -> string:lowercase(Name).
