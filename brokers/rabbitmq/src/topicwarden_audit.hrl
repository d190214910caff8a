%% What the modules of the plugin share: the words of the ring, the codes of the stream (../WIRE.md), the identity.

%% Words of the ring's atomics. The slots begin at ?FIRST_SLOT, ?SLOT_WORDS words each.
-define(GENERATION, 1).  % 0 = record nothing; else what cached numbers are valid for, see ?EPOCH/1
-define(HEAD, 2).        % next slot to reserve, never wraps
-define(TAIL, 3).        % slots before it are free again
-define(DROPPED, 4).     % events that found the ring or a table full
-define(FAILURES, 5).    % exceptions swallowed in the broker's own processes
-define(NUMBERS, 6).     % last number given to an actor or a resource
-define(NAMES, 7).       % names in the table of this epoch
-define(MESSAGES, 8).    % messages on their way from the event handler to the sink
-define(OVERFLOWN, 9).   % broker events not passed on because too many were on their way
-define(FIRST_SLOT, 17).
-define(SLOT_WORDS, 3).

%% A generation is instance (19 bits), epoch (28 bits) and revision (12 bits): one small integer.
%% What is cached by revision is asked again after an exchange went; by epoch, after an epoch began.
-define(REVISION_BITS, 12).
-define(EPOCH_BITS, 28).
-define(EPOCH(Generation), ((Generation) bsr ?REVISION_BITS)).
-define(INSTANCE(Epoch), ((Epoch) bsr ?EPOCH_BITS)).

-define(SHARED, topicwarden_audit).  % key of the persistent term
-record(shared, {
    ring :: atomics:atomics_ref(),
    shift :: non_neg_integer(),      % the ring has 2^shift slots
    names :: ets:tid(),              % {{VHost, Kind, Within, Name}, Epoch, Number}
    fresh :: ets:tid(),              % {Number, Definition}: what the next batch has to define
    connections :: ets:tid(),        % {Pid, Number, Definition}
    started :: integer()             % the plugin, in milliseconds since the epoch
}).

%% Operations, one byte in the ring; topicwarden_audit_wire:operation/1 has their action and AMQP method.
-define(OP_NONE, 0).
-define(OP_PUBLISH, 1).
-define(OP_CONSUME, 2).
-define(OP_GET, 3).
-define(OP_CANCEL, 4).
-define(OP_QUEUE_BIND, 5).
-define(OP_QUEUE_UNBIND, 6).
-define(OP_EXCHANGE_BIND, 7).
-define(OP_EXCHANGE_UNBIND, 8).
-define(OP_QUEUE_DECLARE, 9).
-define(OP_QUEUE_DELETE, 10).
-define(OP_QUEUE_PURGE, 11).
-define(OP_EXCHANGE_DECLARE, 12).
-define(OP_EXCHANGE_DELETE, 13).
-define(OP_EXCHANGE_BIND_TO, 14).    % the destination of an exchange.bind
-define(OP_EXCHANGE_UNBIND_FROM, 15).
-define(OP_LOGIN, 16).
-define(OP_CONNECT, 17).
-define(OP_DISCONNECT, 18).
-define(OP_ANY_PUBLISH, 19).         % refused outside a channel: no method is known
-define(OP_ANY_SUBSCRIBE, 20).
-define(OP_ANY_CONFIGURE, 21).

-define(ATTEMPTED, 1).
-define(REFUSED, 2).
-define(NO_EXCHANGE, 3).

-define(FLAG_CARBON_COPY, 1).
-define(FLAG_TRANSACTION, 2).
-define(FLAG_PASSIVE, 4).
-define(FLAG_GET, 8).
-define(FLAG_TOPIC, 16).
-define(FLAG_PERSISTENT, 32).

-define(PERMISSION_CONFIGURE, 1).
-define(PERMISSION_WRITE, 2).
-define(PERMISSION_READ, 3).
-define(PERMISSION_VHOST, 4).
-define(PERMISSION_LOGIN, 5).

-define(KIND_KEY, 1).
-define(KIND_BINDING, 2).
-define(KIND_QUEUE, 3).
-define(KIND_EXCHANGE, 4).

-define(NO_RESOURCE, 16#FFFFFFFF).
-define(NO_SIZE, 16#FFFFFFFF).
-define(LONGEST_TEXT, 1024).

%% Who acts, as the broker knows it.
-record(actor, {
    channel = 0 :: 0..65535,
    port = 0 :: 0..65535,
    tls = false :: boolean(),
    before = false :: boolean(),     % connected before the plugin started
    connection = <<>> :: binary(),
    user = <<>> :: binary(),
    vhost = <<>> :: binary(),
    protocol = <<>> :: binary(),
    client_id = <<>> :: binary(),
    address = <<>> :: binary(),
    subject = <<>> :: binary(),
    mechanism = <<>> :: binary(),
    provided_name = <<>> :: binary()
}).
