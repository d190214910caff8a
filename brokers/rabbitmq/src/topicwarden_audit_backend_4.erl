%% Stands for one authorisation backend: see topicwarden_audit_backend.
-module(topicwarden_audit_backend_4).
-define(SLOT, 4).
-include("topicwarden_audit_backend_slot.hrl").
