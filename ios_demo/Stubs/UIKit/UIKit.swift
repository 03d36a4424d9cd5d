// Signatures only: see ../README.md.
import Foundation

@MainActor
public class UIApplication: NSObject {
    public class var shared: UIApplication { fatalError("a stub: signatures only") }
    public var isIdleTimerDisabled: Bool {
        get { fatalError("a stub: signatures only") }
        set { fatalError("a stub: signatures only") }
    }
    public nonisolated class var didReceiveMemoryWarningNotification: NSNotification.Name {
        fatalError("a stub: signatures only")
    }
}
