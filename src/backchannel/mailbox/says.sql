-- Step 5: what was said under a key of the caller's is found without reading all that was said in the session.
CREATE INDEX by_say ON frames (session, say_id) WHERE say_id IS NOT NULL;
