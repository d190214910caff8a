%% Sees every method a channel is about to carry out, AMQP's own and those MQTT and STOMP are turned into.
%%
%% It changes nothing. It says it applies to no method, because that list only serves to refuse two interceptors that
%% change the same one (rabbit_channel_interceptor:check_no_overlap/1, 3.10.8; a channel then fails to open); every
%% interceptor is called for every method. So it gets along with any other, whichever comes first. The module stays
%% loaded when the plugin is disabled, for the channels that could not be told.
-module(topicwarden_audit_interceptor).

-behaviour(rabbit_channel_interceptor).

-export([applies_to/0, description/0, init/1, intercept/3]).
-export([others/0, register/0, unregister/0]).

-include_lib("rabbit_common/include/rabbit.hrl").
-include_lib("rabbit_common/include/rabbit_framing.hrl").
-include("topicwarden_audit.hrl").

-define(NAME, <<"topicwarden audit">>).

register() -> rabbit_registry:register(channel_interceptor, ?NAME, ?MODULE).

unregister() -> rabbit_registry:unregister(channel_interceptor, ?NAME).

%% The other interceptors, with the methods they say they change.
-spec others() -> [{module(), [atom()]}].
others() ->
    Modules = [Module || {_, Module} <- rabbit_registry:lookup_all(channel_interceptor), Module =/= ?MODULE],
    [{Module, Module:applies_to()} || Module <- lists:usort(Modules)].

description() -> [{description, <<"topicwarden: records who publishes, subscribes and configures what">>}].

applies_to() -> [].

%% The state is the channel's virtual host. Called for new channels, and for open ones when an interceptor comes or
%% goes.
init(Channel) ->
    try
        transactional(Channel) andalso topicwarden_audit_record:transaction(),
        rabbit_channel:get_vhost(Channel)
    catch
        _:_ ->
            topicwarden_audit_ring:failed(topicwarden_audit_ring:current()),
            none
    end.

%% The field `tx` of a channel's state is `none` outside transactions (rabbit_channel, 3.10.8).
transactional(Channel) when element(1, Channel) =:= ch -> element(4, Channel) =/= none;
transactional(_) -> false.

intercept(#'basic.publish'{exchange = Exchange, routing_key = Key} = Method, Content, VHost) when is_binary(VHost) ->
    case topicwarden_audit_ring:current() of
        off ->
            {Method, Content};
        Shared ->
            case topicwarden_audit_ring:generation(Shared) of
                0 ->
                    {Method, Content};
                Generation ->
                    try
                        {Decoded, Flags, CarbonCopies} = decoded(Content),
                        Size = iolist_size(Decoded#content.payload_fragments_rev),
                        topicwarden_audit_record:publish(
                            Shared, Generation, VHost, {Exchange, Key}, {Size, Flags}, CarbonCopies
                        ),
                        {Method, Decoded}
                    catch
                        throw:too_many_names ->
                            {Method, Content};
                        _:_ ->
                            topicwarden_audit_ring:failed(Shared),
                            {Method, Content}
                    end
            end
    end;
intercept(#'tx.select'{} = Method, Content, _) ->
    %% Also while nobody reads: a transactional channel never stops being one.
    topicwarden_audit_record:transaction(),
    {Method, Content};
intercept(#'basic.ack'{} = Method, Content, _) ->
    {Method, Content};
intercept(Method, Content, VHost) when is_binary(VHost) ->
    topicwarden_audit_ring:recording(fun(Shared, Generation) ->
        [
            topicwarden_audit_record:operation(Shared, Generation, VHost, Operation, Kind, {Name, Flags})
         || {Operation, Kind, Name, Flags} <- operations(Method)
        ]
    end),
    {Method, Content};
intercept(Method, Content, _) ->
    {Method, Content}.

%% rabbit_channel decodes the properties of every message it routes, right after its checks and by the same function,
%% which leaves decoded content as it is (rabbit_binary_parser:ensure_content_decoded/1, 3.10.8). Decoded content handed
%% on is therefore the same to it; when there is nothing in the properties, it is left to the broker.
decoded(#content{properties = none, properties_bin = <<0, 0, _/binary>>} = Content) ->
    {Content, 0, []};
decoded(Content) ->
    #content{properties = Properties} = Decoded = rabbit_binary_parser:ensure_content_decoded(Content),
    case Properties of
        #'P_basic'{headers = undefined, delivery_mode = 2} -> {Decoded, ?FLAG_PERSISTENT, []};
        #'P_basic'{headers = undefined} -> {Decoded, 0, []};
        #'P_basic'{headers = Headers, delivery_mode = 2} -> {Decoded, ?FLAG_PERSISTENT, carbon_copies(Headers)};
        #'P_basic'{headers = Headers} -> {Decoded, 0, carbon_copies(Headers)}
    end.

%% As rabbit_basic:header_routes/1, 3.10.8; what that calls invalid is refused by the broker as a whole.
carbon_copies(Headers) ->
    [
        Key
     || Name <- [<<"CC">>, <<"BCC">>],
        {array, Keys} <- [rabbit_misc:table_lookup(Headers, Name)],
        {longstr, Key} <- Keys
    ].

%% {operation, kind of resource, {within, name}, flags} of each event a method makes.
%%
%% A declaration without a name is not here: the broker makes one up, and `queue.created` says which.
operations(#'basic.consume'{queue = Queue}) ->
    [{?OP_CONSUME, ?KIND_QUEUE, {<<>>, Queue}, 0}];
operations(#'basic.get'{queue = Queue}) ->
    [{?OP_GET, ?KIND_QUEUE, {<<>>, Queue}, ?FLAG_GET}];
operations(#'basic.cancel'{}) ->
    [{?OP_CANCEL, 0, none, 0}];
operations(#'queue.bind'{exchange = Exchange, routing_key = Key}) ->
    [{?OP_QUEUE_BIND, ?KIND_BINDING, {stripped(Exchange), Key}, 0}];
operations(#'queue.unbind'{exchange = Exchange, routing_key = Key}) ->
    [{?OP_QUEUE_UNBIND, ?KIND_BINDING, {stripped(Exchange), Key}, 0}];
operations(#'exchange.bind'{source = Source, destination = Destination, routing_key = Key}) ->
    [
        {?OP_EXCHANGE_BIND, ?KIND_BINDING, {stripped(Source), Key}, 0},
        {?OP_EXCHANGE_BIND_TO, ?KIND_EXCHANGE, {<<>>, stripped(Destination)}, 0}
    ];
operations(#'exchange.unbind'{source = Source, destination = Destination, routing_key = Key}) ->
    [
        {?OP_EXCHANGE_UNBIND, ?KIND_BINDING, {stripped(Source), Key}, 0},
        {?OP_EXCHANGE_UNBIND_FROM, ?KIND_EXCHANGE, {<<>>, stripped(Destination)}, 0}
    ];
operations(#'queue.declare'{queue = <<>>}) ->
    [];
operations(#'queue.declare'{queue = Queue, passive = Passive}) ->
    [{?OP_QUEUE_DECLARE, ?KIND_QUEUE, {<<>>, stripped(Queue)}, passive(Passive)}];
operations(#'queue.delete'{queue = Queue}) ->
    [{?OP_QUEUE_DELETE, ?KIND_QUEUE, {<<>>, stripped(Queue)}, 0}];
operations(#'queue.purge'{queue = Queue}) ->
    [{?OP_QUEUE_PURGE, ?KIND_QUEUE, {<<>>, Queue}, 0}];
operations(#'exchange.declare'{exchange = Exchange, passive = Passive}) ->
    [{?OP_EXCHANGE_DECLARE, ?KIND_EXCHANGE, {<<>>, stripped(Exchange)}, passive(Passive)}];
operations(#'exchange.delete'{exchange = Exchange}) ->
    [{?OP_EXCHANGE_DELETE, ?KIND_EXCHANGE, {<<>>, stripped(Exchange)}, 0}];
operations(_) ->
    [].

passive(true) -> ?FLAG_PASSIVE;
passive(_) -> 0.

%% Where the broker strips line ends from a name before it uses it (rabbit_channel:strip_cr_lf/1, 3.10.8), so do we.
stripped(Name) ->
    case binary:match(Name, [<<"\n">>, <<"\r">>]) of
        nomatch -> Name;
        _ -> binary:replace(Name, [<<"\n">>, <<"\r">>], <<>>, [global])
    end.
