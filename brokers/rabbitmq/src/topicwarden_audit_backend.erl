%% Sees every refusal: modules of ours stand in `auth_backends` for the operator's, ask them, and pass the answer on.
%%
%% Each backend has its own numbered module (topicwarden_audit_backend_1 …), because a user's record keeps the module
%% and the module's own state side by side. Users that logged in while we stood there keep the numbered module in their
%% record, so it has to go on asking after the plugin was disabled: neither these modules nor the numbers ever go.
-module(topicwarden_audit_backend).

-export([behind/1, check_resource_access/5, check_topic_access/5, check_vhost_access/4, login/4]).
-export([is_only_one/0, unwrap/0, wrap/0]).

-include_lib("rabbit_common/include/rabbit.hrl").

-define(SLOTS, 8).
%% Never erased, so that a number means the same backend for as long as the node runs.
-define(BEHIND(Slot), {?MODULE, Slot}).
-define(SLOT_OF, {?MODULE, slots}).
%% {what stood there, what we put there}
-define(REPLACED, {?MODULE, replaced}).

%% The backend a number stands for.
-spec behind(pos_integer()) -> module().
behind(Slot) -> persistent_term:get(?BEHIND(Slot)).

%% `Function` is user_login_authentication or user_login_authorization.
login(Slot, Function, User, Properties) ->
    Backend = behind(Slot),
    try Backend:Function(User, Properties) of
        Answer when element(1, Answer) =:= ok ->
            Answer;
        Refusal ->
            login_refused(User, Properties),
            Refusal
    catch
        Class:Reason:Stack ->
            login_refused(User, Properties),
            erlang:raise(Class, Reason, Stack)
    end.

%% One of several backends may refuse what the next one allows: then only the broker's event says how it ended.
login_refused(User, Properties) ->
    case is_only_one() of
        true -> topicwarden_audit_record:login_refused(User, Properties);
        false -> ok
    end.

%% Whether `auth_backends` has one entry and it is ours, so that what it refuses is refused.
-spec is_only_one() -> boolean().
is_only_one() ->
    case application:get_env(rabbit, auth_backends) of
        {ok, [Entry]} -> unwrap_entry(Entry) =/= Entry;
        _ -> false
    end.

check_vhost_access(Slot, #auth_user{username = Name} = User, VHost, Context) ->
    Backend = behind(Slot),
    try Backend:check_vhost_access(User, VHost, Context) of
        true ->
            true;
        Refusal ->
            topicwarden_audit_record:vhost_refused(Name, VHost, Context),
            Refusal
    catch
        Class:Reason:Stack ->
            topicwarden_audit_record:vhost_refused(Name, VHost, Context),
            erlang:raise(Class, Reason, Stack)
    end.

check_resource_access(Slot, #auth_user{username = Name} = User, Resource, Permission, Context) ->
    Backend = behind(Slot),
    try Backend:check_resource_access(User, Resource, Permission, Context) of
        true ->
            true;
        Refusal ->
            topicwarden_audit_record:refused(Name, Resource, Permission, Context),
            Refusal
    catch
        Class:Reason:Stack ->
            topicwarden_audit_record:refused(Name, Resource, Permission, Context),
            erlang:raise(Class, Reason, Stack)
    end.

check_topic_access(Slot, #auth_user{username = Name} = User, Resource, Permission, Context) ->
    Backend = behind(Slot),
    try Backend:check_topic_access(User, Resource, Permission, Context) of
        true ->
            true;
        Refusal ->
            topicwarden_audit_record:refused(Name, Resource, Permission, Context),
            Refusal
    catch
        Class:Reason:Stack ->
            topicwarden_audit_record:refused(Name, Resource, Permission, Context),
            erlang:raise(Class, Reason, Stack)
    end.

%% Put our modules in the place of those in `auth_backends` that are not ours yet; returns what had to be left alone.
-spec wrap() -> [term()].
wrap() ->
    case application:get_env(rabbit, auth_backends) of
        {ok, Backends} when is_list(Backends) ->
            Wrapped = [wrap_entry(Entry) || Entry <- Backends],
            case [Entry || {_, Entry} <- Wrapped] of
                Backends ->
                    ok;
                New ->
                    persistent_term:put(?REPLACED, {unwrapped(Backends), New}),
                    application:set_env(rabbit, auth_backends, New)
            end,
            [Entry || {left, Entry} <- Wrapped];
        Other ->
            [Other]
    end.

%% Undo `wrap/0`: exactly when `auth_backends` is as we left it, else entry by entry, leaving what somebody changed.
%%
%% Done by a process of its own, right after the application has stopped: while it stops, the application controller
%% takes no change of any setting (Erlang/OTP 25: application:set_env/3 ran into its timeout of 5 s). The controller
%% gets to it before it can start us again.
-spec unwrap() -> ok.
unwrap() ->
    spawn(fun restore/0),
    ok.

restore() ->
    case application:get_env(rabbit, auth_backends) of
        {ok, Backends} when is_list(Backends) ->
            case unwrapped(Backends) of
                Backends -> ok;
                Old -> application:set_env(rabbit, auth_backends, Old, [{timeout, infinity}])
            end;
        _ ->
            ok
    end.

unwrapped(Backends) ->
    case persistent_term:get(?REPLACED, none) of
        {Old, Backends} -> Old;
        _ -> [unwrap_entry(Entry) || Entry <- Backends]
    end.

%% The forms rabbit_access_control:check_user_login/2 knows (3.10.8). The cache stands alone for {cache, cache}.
wrap_entry(rabbit_auth_backend_cache = Cache) ->
    wrap_entry(Cache, {Cache, Cache});
wrap_entry(Entry) ->
    wrap_entry(Entry, Entry).

wrap_entry(Entry, {Authentication, Authorisation}) when is_atom(Authentication), is_atom(Authorisation) ->
    case {slot(Authentication, authn), slot(Authorisation, authz)} of
        {{ok, First}, {ok, Second}} -> {wrapped, {First, Second}};
        _ -> {left, Entry}
    end;
wrap_entry(Entry, {Authentication, [_ | _] = Authorisations}) when is_atom(Authentication) ->
    Slots = [slot(Module, authz) || Module <- Authorisations],
    case {slot(Authentication, authn), [Module || {ok, Module} <- Slots]} of
        {{ok, First}, Others} when length(Others) =:= length(Authorisations) -> {wrapped, {First, Others}};
        _ -> {left, Entry}
    end;
wrap_entry(Entry, Module) when is_atom(Module) ->
    case slot(Module, both) of
        {ok, Slot} -> {wrapped, Slot};
        none -> {left, Entry}
    end;
wrap_entry(Entry, _) ->
    {left, Entry}.

unwrap_entry({Authentication, Authorisations}) when is_list(Authorisations) ->
    {original(Authentication), [original(Module) || Module <- Authorisations]};
unwrap_entry({Authentication, Authorisation}) ->
    case {original(Authentication), original(Authorisation)} of
        {rabbit_auth_backend_cache = Cache, Cache} -> Cache;
        Entry -> Entry
    end;
unwrap_entry(Module) ->
    original(Module).

original(Module) ->
    case lists:member(Module, slot_modules()) of
        true -> behind(slot_number(Module));
        false -> Module
    end.

%% The module of ours that stands for `Backend`.
slot(Backend, Role) ->
    case lists:member(Backend, slot_modules()) of
        true ->
            {ok, Backend};
        false ->
            Slots = persistent_term:get(?SLOT_OF, []),
            case {usable(Backend, Role), lists:keyfind(Backend, 1, Slots), length(Slots)} of
                {false, _, _} ->
                    none;
                {true, {_, Slot}, _} ->
                    {ok, lists:nth(Slot, slot_modules())};
                {true, false, ?SLOTS} ->
                    none;
                {true, false, Taken} ->
                    persistent_term:put(?BEHIND(Taken + 1), Backend),
                    persistent_term:put(?SLOT_OF, [{Backend, Taken + 1} | Slots]),
                    {ok, lists:nth(Taken + 1, slot_modules())}
            end
    end.

usable(Backend, Role) ->
    Needed =
        case Role of
            authn -> [{user_login_authentication, 2}];
            authz -> [{check_resource_access, 4}];
            both -> [{user_login_authentication, 2}, {check_resource_access, 4}]
        end,
    code:ensure_loaded(Backend) =:= {module, Backend} andalso
        lists:all(fun({Name, Arity}) -> erlang:function_exported(Backend, Name, Arity) end, Needed).

slot_number(Module) ->
    {Slot, _} = lists:keyfind(Module, 2, lists:zip(lists:seq(1, ?SLOTS), slot_modules())),
    Slot.

slot_modules() ->
    [
        topicwarden_audit_backend_1,
        topicwarden_audit_backend_2,
        topicwarden_audit_backend_3,
        topicwarden_audit_backend_4,
        topicwarden_audit_backend_5,
        topicwarden_audit_backend_6,
        topicwarden_audit_backend_7,
        topicwarden_audit_backend_8
    ].
