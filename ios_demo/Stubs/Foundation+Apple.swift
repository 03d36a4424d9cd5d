// Signatures: see README.md. What Foundation has on Apple's systems alone, of what the app uses.
import Combine
import Foundation

func autoreleasepool<Result>(invoking body: () throws -> Result) rethrows -> Result { try body() }

extension ProcessInfo {
    enum ThermalState: Int, Sendable {
        case nominal, fair, serious, critical
    }

    var thermalState: ThermalState { .nominal }
}

extension URL {
    static var applicationSupportDirectory: URL { ofThisRun("applicationSupport") }
    static var cachesDirectory: URL { ofThisRun("caches") }
    static var documentsDirectory: URL { ofThisRun("documents") }
    /// Each run of the tests has its own.
    private static func ofThisRun(_ name: String) -> URL {
        FileManager.default.temporaryDirectory.appending(
            path: "smolship-\(ProcessInfo.processInfo.processIdentifier)/\(name)")
    }

    func startAccessingSecurityScopedResource() -> Bool { fatalError("a stub: signatures only") }
    func stopAccessingSecurityScopedResource() { fatalError("a stub: signatures only") }
}

extension NotificationCenter {
    struct Publisher: Combine.Publisher {
        typealias Output = Notification
        typealias Failure = Never
    }

    func publisher(for name: Notification.Name, object: AnyObject? = nil) -> Publisher {
        fatalError("a stub: signatures only")
    }
}
