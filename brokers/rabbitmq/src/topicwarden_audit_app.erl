%% The application and its supervisor. Whatever fails here, the broker starts and goes on: an application that did not
%% start would keep the whole node from booting.
-module(topicwarden_audit_app).

-behaviour(application).
-behaviour(supervisor).

-export([start/2, stop/1]).
-export([init/1]).

start(_Type, _Arguments) ->
    try
        topicwarden_audit_keeper:load_resident(),
        supervisor:start_link({local, topicwarden_audit_sup}, ?MODULE, work)
    of
        {ok, Supervisor} -> {ok, Supervisor};
        {error, Reason} -> idle(Reason)
    catch
        Class:Reason -> idle({Class, Reason})
    end.

%% The keeper has undone all this already, unless it was killed or never came up.
stop(_State) ->
    topicwarden_audit_keeper:undo(),
    ok.

idle(Reason) ->
    rabbit_log:error("topicwarden_audit: could not start, nothing will be recorded: ~ts", [
        io_lib:format("~0tp", [Reason], [{chars_limit, 1000}])
    ]),
    topicwarden_audit_keeper:undo(),
    supervisor:start_link(?MODULE, idle).

init(idle) ->
    {ok, {#{}, []}};
%% The keeper is stopped first: nothing is recorded any more when the sink sends its last batch.
init(work) ->
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
