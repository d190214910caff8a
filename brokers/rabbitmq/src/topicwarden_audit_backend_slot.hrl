%% The body of the numbered modules that stand for an authorisation backend; all they know is their number.
-behaviour(rabbit_authn_backend).
-behaviour(rabbit_authz_backend).

-export([user_login_authentication/2, user_login_authorization/2]).
-export([check_vhost_access/3, check_resource_access/4, check_topic_access/4, state_can_expire/0, update_state/2]).

user_login_authentication(User, Properties) ->
    topicwarden_audit_backend:login(?SLOT, user_login_authentication, User, Properties).

user_login_authorization(User, Properties) ->
    topicwarden_audit_backend:login(?SLOT, user_login_authorization, User, Properties).

check_vhost_access(User, VHost, Context) ->
    topicwarden_audit_backend:check_vhost_access(?SLOT, User, VHost, Context).

check_resource_access(User, Resource, Permission, Context) ->
    topicwarden_audit_backend:check_resource_access(?SLOT, User, Resource, Permission, Context).

check_topic_access(User, Resource, Permission, Context) ->
    topicwarden_audit_backend:check_topic_access(?SLOT, User, Resource, Permission, Context).

state_can_expire() ->
    (topicwarden_audit_backend:behind(?SLOT)):state_can_expire().

update_state(User, State) ->
    (topicwarden_audit_backend:behind(?SLOT)):update_state(User, State).
