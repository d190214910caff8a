%% Stands for one authorisation backend: see topicwarden_audit_backend.
-module(topicwarden_audit_backend_6).
-define(SLOT, 6).
-include("topicwarden_audit_backend_slot.hrl").
