%% Stands for one authorisation backend: see topicwarden_audit_backend.
-module(topicwarden_audit_backend_1).
-define(SLOT, 1).
-include("topicwarden_audit_backend_slot.hrl").
