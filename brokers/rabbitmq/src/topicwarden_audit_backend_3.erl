%% Stands for one authorisation backend: see topicwarden_audit_backend.
-module(topicwarden_audit_backend_3).
-define(SLOT, 3).
-include("topicwarden_audit_backend_slot.hrl").
