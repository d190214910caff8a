%% Stands for one authorisation backend: see topicwarden_audit_backend.
-module(topicwarden_audit_backend_7).
-define(SLOT, 7).
-include("topicwarden_audit_backend_slot.hrl").
