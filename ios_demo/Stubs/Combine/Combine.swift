// Signatures only: see ../README.md.
public protocol Publisher<Output, Failure> {
    associatedtype Output
    associatedtype Failure: Error
}
