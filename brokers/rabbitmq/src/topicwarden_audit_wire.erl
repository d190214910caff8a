%% The stream's bytes, as ../WIRE.md has them. Pure; called from the broker's own processes too, so it stays loaded
%% when the plugin is disabled.
-module(topicwarden_audit_wire).

-export([actor/2, batch/5, change/3, event/6, note/3, operation/1, resource/5, text/1]).

-include("topicwarden_audit.hrl").

-type batch() :: #{
    first := boolean(),
    boot := non_neg_integer(),
    epoch := non_neg_integer(),
    number := non_neg_integer(),
    first_event := non_neg_integer(),
    dropped := non_neg_integer()
}.
-export_type([batch/0]).

%% The message's body. Definitions and events come encoded, with their counts.
-spec batch(batch(), non_neg_integer(), iodata(), non_neg_integer(), iodata()) -> iodata().
batch(Header, Definitions, DefinitionBytes, Events, EventBytes) ->
    #{first := First, boot := Boot, epoch := Epoch, number := Number, first_event := FirstEvent, dropped := Dropped} =
        Header,
    Flags =
        case First of
            true -> 1;
            false -> 0
        end,
    [
        <<"TWRB", 1, Flags, 0:16, Boot:64, Epoch:32, Definitions:32>>,
        <<Number:64, FirstEvent:64, Dropped:64, Events:32, 0:32>>,
        DefinitionBytes,
        EventBytes
    ].

-spec actor(non_neg_integer(), #actor{}) -> binary().
actor(Number, Actor) ->
    #actor{channel = Channel, port = Port, tls = Tls, before = Before} = Actor,
    Flags = flag(Tls, 1) bor flag(Before, 2),
    definition(1, [
        <<Number:32, Channel:16, Port:16, Flags>>,
        text(Actor#actor.connection),
        text(Actor#actor.user),
        text(Actor#actor.vhost),
        text(Actor#actor.protocol),
        text(Actor#actor.client_id),
        text(Actor#actor.address),
        text(Actor#actor.subject),
        text(Actor#actor.mechanism),
        text(Actor#actor.provided_name)
    ]).

-spec resource(non_neg_integer(), 1..4, atom(), binary(), binary()) -> binary().
resource(Number, Kind, ExchangeType, Within, Name) ->
    definition(2, [<<Number:32, Kind, (exchange_type(ExchangeType))>>, text(Within), text(Name)]).

-spec change(integer(), binary(), [{binary(), binary()}]) -> binary().
change(Time, Name, Pairs) ->
    definition(3, [
        <<Time:64, (length(Pairs)):16>>, text(Name) | [[text(Key), text(Value)] || {Key, Value} <- Pairs]
    ]).

-spec note(integer(), binary(), binary()) -> binary().
note(Time, Code, Detail) ->
    definition(4, [<<Time:64>>, text(Code), text(Detail)]).

-spec event(integer(), non_neg_integer(), non_neg_integer(), non_neg_integer(), byte(), {1..3, byte(), 0..5}) ->
    binary().
event(Time, Actor, Resource, Size, Operation, {Outcome, Flags, Permission}) ->
    {Action, Method} = operation(Operation),
    <<Time:64, Actor:32, Resource:32, Size:32, Action, Outcome, Flags, Permission, Method:32, 0:32>>.

%% Action and AMQP method (class and method id in one number) of an operation.
-spec operation(byte()) -> {1..8, non_neg_integer()}.
operation(?OP_PUBLISH) -> {4, 60 bsl 16 + 40};
operation(?OP_CONSUME) -> {5, 60 bsl 16 + 20};
operation(?OP_GET) -> {5, 60 bsl 16 + 70};
operation(?OP_CANCEL) -> {6, 60 bsl 16 + 30};
operation(?OP_QUEUE_BIND) -> {5, 50 bsl 16 + 20};
operation(?OP_QUEUE_UNBIND) -> {6, 50 bsl 16 + 50};
operation(?OP_EXCHANGE_BIND) -> {5, 40 bsl 16 + 30};
operation(?OP_EXCHANGE_UNBIND) -> {6, 40 bsl 16 + 40};
operation(?OP_QUEUE_DECLARE) -> {8, 50 bsl 16 + 10};
operation(?OP_QUEUE_DELETE) -> {8, 50 bsl 16 + 40};
operation(?OP_QUEUE_PURGE) -> {8, 50 bsl 16 + 30};
operation(?OP_EXCHANGE_DECLARE) -> {8, 40 bsl 16 + 10};
operation(?OP_EXCHANGE_DELETE) -> {8, 40 bsl 16 + 20};
operation(?OP_EXCHANGE_BIND_TO) -> {8, 40 bsl 16 + 30};
operation(?OP_EXCHANGE_UNBIND_FROM) -> {8, 40 bsl 16 + 40};
operation(?OP_LOGIN) -> {1, 0};
operation(?OP_CONNECT) -> {2, 0};
operation(?OP_DISCONNECT) -> {3, 0};
operation(?OP_ANY_PUBLISH) -> {4, 0};
operation(?OP_ANY_SUBSCRIBE) -> {5, 0};
operation(?OP_ANY_CONFIGURE) -> {8, 0}.

%% Bytes behind their length, cut where the stream cuts them.
-spec text(binary()) -> binary().
text(<<Text:?LONGEST_TEXT/binary, _, _/binary>>) -> text(Text);
text(Text) -> <<(byte_size(Text)):16, Text/binary>>.

definition(Type, Fields) ->
    Rest = iolist_to_binary(Fields),
    <<Type, (byte_size(Rest)):32, Rest/binary>>.

exchange_type(none) -> 0;
exchange_type(direct) -> 1;
exchange_type(topic) -> 2;
exchange_type(fanout) -> 3;
exchange_type(headers) -> 4;
exchange_type(_) -> 5.

flag(true, Bit) -> Bit;
flag(false, _) -> 0.
