"""The compliance report: what a store holds, judged against controls, for people and for tools."""
