"""Other people's plugins, built by the tests: an interceptor, and a backend that gives every kind of answer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from topicwarden_collectors.rabbitmq.node import packaged_plugins

INTERCEPTOR = "other_interceptor"
BACKEND = "other_backend"

_SOURCES = {
    INTERCEPTOR: """
-module(other_interceptor).
-behaviour(rabbit_channel_interceptor).
-behaviour(application).
-behaviour(supervisor).
-export([description/0, init/1, intercept/3, applies_to/0, start/2, stop/1]).
-include_lib("rabbit_common/include/rabbit_framing.hrl").
start(_, _) ->
    rabbit_registry:register(channel_interceptor, <<"other interceptor">>, ?MODULE),
    supervisor:start_link(?MODULE, supervisor).
stop(_) -> rabbit_registry:unregister(channel_interceptor, <<"other interceptor">>).
init(supervisor) -> {ok, {#{}, []}};
init(_) -> none.
description() -> [{description, <<"sends what is published to 'from' to 'to'">>}].
applies_to() -> ['basic.publish', 'queue.declare'].
intercept(#'basic.publish'{routing_key = <<"from">>} = Method, Content, _) ->
    {Method#'basic.publish'{routing_key = <<"to">>}, Content};
intercept(Method, Content, _) -> {Method, Content}.
""",
    # Knows the users that begin with "out"; every answer a backend may give is given by some name.
    BACKEND: """
-module(other_backend).
-behaviour(rabbit_authn_backend).
-behaviour(rabbit_authz_backend).
-behaviour(application).
-behaviour(supervisor).
-include_lib("rabbit_common/include/rabbit.hrl").
-export([start/2, stop/1, init/1]).
-export([user_login_authentication/2, user_login_authorization/2, check_vhost_access/3, check_resource_access/4,
         check_topic_access/4, state_can_expire/0, update_state/2]).
start(_, _) -> supervisor:start_link(?MODULE, []).
stop(_) -> ok.
init([]) -> {ok, {#{}, []}}.
user_login_authentication(<<"out-fails">>, _) -> {error, broken};
user_login_authentication(<<"out-crashes">>, _) -> exit(broken);
user_login_authentication(<<"out", _/binary>> = Name, _) ->
    {ok, #auth_user{username = Name, tags = [management], impl = {state, Name}}};
user_login_authentication(Name, _) -> {refused, "not one of ours: '~s'", [Name]}.
user_login_authorization(<<"out", _/binary>> = Name, _) -> {ok, {state, Name}, [monitoring]};
user_login_authorization(Name, _) -> {refused, "not one of ours: '~s'", [Name]}.
check_vhost_access(#auth_user{username = Name, impl = {state, Name}}, VHost, _) -> VHost =/= <<"closed">>.
check_resource_access(#auth_user{username = Name, impl = {state, Name}}, #resource{name = <<"erroneous">>}, _, _) ->
    {error, no_answer};
check_resource_access(#auth_user{username = Name, impl = {state, Name}}, #resource{name = <<"crashing">>}, _, _) ->
    throw(no_answer);
check_resource_access(#auth_user{username = Name, impl = {state, Name}}, #resource{name = Resource}, Permission, _) ->
    Resource =/= <<"forbidden">> andalso not (Permission =:= write andalso Resource =:= <<"read-only">>).
check_topic_access(#auth_user{username = Name, impl = {state, Name}}, _, _, #{routing_key := Key}) ->
    Key =/= <<"secret">>.
state_can_expire() -> false.
update_state(User, _) -> {ok, User}.
""",
}


def build_other(name: str, folder: Path) -> None:
    """Build one of them as an unpacked plugin below `folder`."""
    ebin = folder / f"{name}-0.1.0" / "ebin"
    ebin.mkdir(parents=True)
    source = folder / f"{name}-0.1.0" / f"{name}.erl"
    source.write_text(_SOURCES[name])
    (ebin / f"{name}.app").write_text(
        f'{{application, {name}, [{{description, ""}}, {{vsn, "0.1.0"}}, {{modules, [{name}]}}, {{registered, []}}, '
        f"{{applications, [kernel, stdlib, rabbit_common, rabbit]}}, {{mod, {{{name}, []}}}}, {{env, []}}]}}.\n"
    )
    # Two behaviours with an init/1 each, as many small plugins have: a warning, no mistake.
    subprocess.run(
        ["erlc", "-o", str(ebin), str(source)],
        env={**os.environ, "ERL_LIBS": str(packaged_plugins())},
        check=True,
        capture_output=True,
    )
