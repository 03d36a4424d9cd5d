// Signatures only: see ../README.md.
public enum AccessibilityNotification {
    public struct Announcement {
        public init(_ announcement: String) { fatalError("a stub: signatures only") }
        public func post() { fatalError("a stub: signatures only") }
    }
}
