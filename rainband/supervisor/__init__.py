"""Are my slots as assigned?

A supervisor owns the slots of one host. Nimbus says which topology belongs on each; this room brings the code here
(localizer), starts one worker process per slot (processes), and drives each slot through one pure state machine (slot).
The daemon is the shell around them: it reads the world, steps the machine of a slot, and carries out its actions.

Invariants
- One live worker per slot, at most: a slot starts a process only when its last one is known to be gone.
- Workers outlive their supervisor. They are found again by pid, start time and boot id, never by pid alone.
- No orphan: a worker's whole process group goes with it, and a worker nobody wants is stopped.
- With Nimbus silent nothing changes but what died: workers are restarted from the last assignment, kept on disk.
- Slow is not dead: only a worker that is stopped, or neither passes its loop nor uses the CPU, is replaced.

Called by the command line and by LocalCluster(processes=True). Workers and Nimbus are other processes; this room
speaks to them through messaging alone. It is the only room that starts processes or asks psutil about them.
"""
