%% A ring of fixed size in shared memory: every channel and connection writes to it, the sink alone reads.
%%
%% A writer reserves a slot by compare and exchange, fills it and commits it with its last word, which carries the lap.
%% It never waits and sends no message, so nothing has to be woken: that is what keeps the cost of a publish low, and
%% what bounds the memory. A full ring drops, and counts.
%%
%% A writer killed between reserving and committing leaves a hole. The sink then takes a new ring, because a slot it
%% merely skipped could be written to by both the late writer and the next one to reserve it.
-module(topicwarden_audit_ring).

-export([
    create/1,
    current/0,
    drop/1,
    failed/1,
    generation/1,
    head/1,
    hole/2,
    new_number/1,
    put/5,
    recording/1,
    release/2,
    rest/4,
    set_generation/2,
    take/4
]).

-include("topicwarden_audit.hrl").

-compile({inline, [rest/4, lap/2, slot/2]}).

%% A ring of at least `Slots` slots, to be put in the shared record; and the logarithm of its true size.
-spec create(pos_integer()) -> {atomics:atomics_ref(), non_neg_integer()}.
create(Slots) ->
    Shift = shift(Slots, 0),
    {atomics:new(?FIRST_SLOT + (?SLOT_WORDS bsl Shift), [{signed, false}]), Shift}.

shift(Slots, Shift) when 1 bsl Shift >= Slots; Shift =:= 22 -> Shift;
shift(Slots, Shift) -> shift(Slots, Shift + 1).

-spec current() -> #shared{} | off.
current() -> persistent_term:get(?SHARED, off).

%% Do `Record` if anything is to be recorded. Whatever it raises is swallowed and counted: nothing of ours may end a
%% channel or a login.
-spec recording(fun((#shared{}, pos_integer()) -> term())) -> ok.
recording(Record) ->
    %% All of it inside: what stands behind `of` in a try is not caught.
    try
        case current() of
            off -> ok;
            Shared -> recording(Record, Shared, generation(Shared))
        end
    catch
        throw:too_many_names -> ok;
        _:_ -> failed(current())
    end.

recording(_, _, 0) ->
    ok;
recording(Record, Shared, Generation) ->
    Record(Shared, Generation),
    ok.

-spec generation(#shared{}) -> non_neg_integer().
generation(#shared{ring = Ring}) -> atomics:get(Ring, ?GENERATION).

-spec set_generation(#shared{}, non_neg_integer()) -> ok.
set_generation(#shared{ring = Ring}, Generation) -> atomics:put(Ring, ?GENERATION, Generation).

%% A number for an actor or a resource; ?NO_RESOURCE is never one.
-spec new_number(#shared{}) -> non_neg_integer().
new_number(#shared{ring = Ring}) -> atomics:add_get(Ring, ?NUMBERS, 1) rem ?NO_RESOURCE.

-spec drop(#shared{}) -> ok.
drop(#shared{ring = Ring}) -> atomics:add(Ring, ?DROPPED, 1).

%% Count an exception that was swallowed; itself swallows everything.
-spec failed(#shared{} | off) -> ok.
failed(#shared{ring = Ring}) -> atomics:add(Ring, ?FAILURES, 1);
failed(_) -> ok.

-spec head(#shared{}) -> non_neg_integer().
head(#shared{ring = Ring}) -> atomics:get(Ring, ?HEAD).

%% The last word of an event, but for its lap; 59 bits, so that it is no bignum.
-spec rest(non_neg_integer(), byte(), {1..3, byte(), 0..5}, non_neg_integer()) -> non_neg_integer().
rest(Size, Operation, {Outcome, Flags, Permission}, Generation) ->
    (Size bsl 27) bor (Operation bsl 19) bor (Outcome bsl 17) bor (Flags bsl 11) bor (Permission bsl 8) bor
        ((?EPOCH(Generation) band 3) bsl 6).

%% `Pair` is actor and resource, 32 bits each.
-spec put(#shared{}, integer(), non_neg_integer(), non_neg_integer(), non_neg_integer()) -> ok.
put(#shared{ring = Ring, shift = Shift} = Shared, Time, Pair, Rest, Tries) ->
    Head = atomics:get(Ring, ?HEAD),
    case Head - atomics:get(Ring, ?TAIL) of
        Pending when Pending >= 1 bsl Shift ->
            atomics:add(Ring, ?DROPPED, 1);
        _ ->
            case atomics:compare_exchange(Ring, ?HEAD, Head, Head + 1) of
                ok ->
                    Slot = slot(Head, Shift),
                    atomics:put(Ring, Slot, Time),
                    atomics:put(Ring, Slot + 1, Pair),
                    atomics:put(Ring, Slot + 2, Rest bor lap(Head, Shift));
                _ when Tries > 1000 ->
                    atomics:add(Ring, ?DROPPED, 1);
                _ ->
                    put(Shared, Time, Pair, Rest, Tries + 1)
            end
    end.

%% Up to `Max` events from `Tail`, encoded, and the next tail; and the actors and resources of those that were written
%% in another epoch than `Generation`'s: they may have been defined before that epoch began.
-spec take(#shared{}, non_neg_integer(), non_neg_integer(), pos_integer()) ->
    {binary(), non_neg_integer(), [non_neg_integer()]}.
take(#shared{ring = Ring, shift = Shift}, Generation, Tail, Max) ->
    take(Ring, Shift, ?EPOCH(Generation) band 3, Tail, Tail + Max, <<>>, []).

take(_, _, _, Tail, Tail, Events, Late) ->
    {Events, Tail, Late};
take(Ring, Shift, Epoch, Position, End, Events, Late) ->
    Slot = slot(Position, Shift),
    Rest = atomics:get(Ring, Slot + 2),
    case Rest band 63 =:= lap(Position, Shift) of
        false ->
            {Events, Position, Late};
        true ->
            Time = atomics:get(Ring, Slot),
            Pair = atomics:get(Ring, Slot + 1),
            {Action, Method} = topicwarden_audit_wire:operation((Rest bsr 19) band 255),
            Late1 =
                case (Rest bsr 6) band 3 of
                    Epoch -> Late;
                    _ -> [Pair bsr 32, Pair band 16#FFFFFFFF | Late]
                end,
            Event =
                <<Events/binary, Time:64, Pair:64, (Rest bsr 27):32, Action, ((Rest bsr 17) band 3),
                    ((Rest bsr 11) band 63), ((Rest bsr 8) band 7), Method:32, 0:32>>,
            take(Ring, Shift, Epoch, Position + 1, End, Event, Late1)
    end.

%% Give the slots before `Tail` back to the writers.
-spec release(#shared{}, non_neg_integer()) -> ok.
release(#shared{ring = Ring}, Tail) -> atomics:put(Ring, ?TAIL, Tail).

%% Whether the slot at `Position` is reserved and not committed.
-spec hole(#shared{}, non_neg_integer()) -> boolean().
hole(#shared{ring = Ring, shift = Shift}, Position) ->
    atomics:get(Ring, ?HEAD) > Position andalso
        atomics:get(Ring, slot(Position, Shift) + 2) band 63 =/= lap(Position, Shift).

slot(Position, Shift) -> ?FIRST_SLOT + (Position band (1 bsl Shift - 1)) * ?SLOT_WORDS.

%% 1 to 63; 0 is a slot never written.
lap(Position, Shift) -> (Position bsr Shift) rem 63 + 1.
