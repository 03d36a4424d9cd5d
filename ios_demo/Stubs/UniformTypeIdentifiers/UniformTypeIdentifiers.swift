// Signatures only: see ../README.md.
public struct UTType: Sendable, Hashable {
    public static var folder: UTType { fatalError("a stub: signatures only") }
    public static var json: UTType { fatalError("a stub: signatures only") }
}
