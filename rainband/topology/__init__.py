"""What did the user write?

`components.py` holds the classes users subclass, `streams.py` what they declare to emit, `builder.py` collects the
declarations, and `graph.py` turns them into a `Topology`: a validated plan (`plan.py`) plus snapshots of the
components. `bundle.py` packs the code that goes with a plan and imports the user's file.

Invariants
- A plan that exists is valid: every subscription names an existing component, stream and fields.
- A component is snapshot when it is set: what the program does to its object afterwards changes nothing, and every
  task gets its own copy.
- The same declarations give the same plan, whatever order they were made in, and so the same digest.
- A plan holds no code, and reading one runs none: only workers unpickle what a bundle carries.

Called by users' programs, by clients that submit, and by workers, which load components from a bundle. The room does
not know how a topology runs. Nothing is imported here, so that Nimbus can read plans without loading any of it.
"""
