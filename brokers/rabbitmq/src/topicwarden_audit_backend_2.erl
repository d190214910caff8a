%% Stands for one authorisation backend: see topicwarden_audit_backend.
-module(topicwarden_audit_backend_2).
-define(SLOT, 2).
-include("topicwarden_audit_backend_slot.hrl").
