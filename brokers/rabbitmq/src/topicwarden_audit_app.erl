%% The application and its supervisor. Whatever happens here, the broker goes on, and its backends are as they were.
-module(topicwarden_audit_app).

-behaviour(application).
-behaviour(supervisor).

-export([start/2, stop/1]).
-export([init/1]).

start(_Type, _Arguments) ->
    topicwarden_audit_keeper:load_resident(),
    supervisor:start_link({local, topicwarden_audit_sup}, ?MODULE, []).

%% The keeper has undone all this already, unless it was killed or never came up.
stop(_State) ->
    topicwarden_audit_keeper:undo(),
    ok.

%% The keeper is stopped first: nothing is recorded any more when the sink sends its last batch.
init([]) ->
    Children = [
        #{
            id => Module,
            start => {Module, start_link, []},
            restart => permanent,
            shutdown => 60000,
            type => worker,
            modules => [Module]
        }
     || Module <- [topicwarden_audit_sink, topicwarden_audit_keeper]
    ],
    {ok, {#{strategy => one_for_one, intensity => 10, period => 60}, Children}}.
