"""Studies of sessions: one unknown person asks several times, and policies adapt."""
