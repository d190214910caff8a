%% Stands for one authorisation backend: see topicwarden_audit_backend.
-module(topicwarden_audit_backend_8).
-define(SLOT, 8).
-include("topicwarden_audit_backend_slot.hrl").
