%% Stands for one authorisation backend: see topicwarden_audit_backend.
-module(topicwarden_audit_backend_5).
-define(SLOT, 5).
-include("topicwarden_audit_backend_slot.hrl").
