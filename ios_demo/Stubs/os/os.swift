// Signatures only: see ../README.md.
public func os_proc_available_memory() -> Int { fatalError("a stub: signatures only") }
