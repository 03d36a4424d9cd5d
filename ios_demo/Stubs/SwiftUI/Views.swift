// Signatures only: see ../README.md. Views.
@MainActor @preconcurrency
public protocol View {
    associatedtype Body: View
    @ViewBuilder @MainActor @preconcurrency var body: Body { get }
}

extension Never: View {
    public var body: Never { stub() }
}

/// A view of the framework's own.
@MainActor @preconcurrency
public protocol Primitive: View where Body == Never {}

extension Primitive {
    public var body: Never { stub() }
}

@resultBuilder
public struct ViewBuilder {
    public static func buildExpression<Content: View>(_ content: Content) -> Content { stub() }
    public static func buildBlock() -> EmptyView { stub() }
    public static func buildBlock<Content: View>(_ content: Content) -> Content { stub() }
    public static func buildBlock<each Content: View>(_ content: repeat each Content) -> TupleView<
        (repeat each Content)
    > { stub() }
    public static func buildIf<Content: View>(_ content: Content?) -> Content? { stub() }
    public static func buildEither<A: View, B: View>(first: A) -> Conditional<A, B> { stub() }
    public static func buildEither<A: View, B: View>(second: B) -> Conditional<A, B> { stub() }
}

extension Optional: View where Wrapped: View {
    public var body: Never { stub() }
}

public struct EmptyView: Primitive { public init() { stub() } }
public struct TupleView<T>: Primitive {}
public struct Conditional<A: View, B: View>: Primitive {}
public struct Divider: Primitive { public init() { stub() } }

public struct LocalizedStringKey: ExpressibleByStringInterpolation {
    public init(stringLiteral value: String) { stub() }
}

public struct Text: Primitive {
    public init(_ key: LocalizedStringKey) { stub() }
    @_disfavoredOverload public init<S: StringProtocol>(_ content: S) { stub() }
    public init(verbatim content: String) { stub() }
    public init<F: FormatStyle>(_ input: F.FormatInput, format: F)
    where F.FormatInput: Equatable, F.FormatOutput == String {
        stub()
    }
}

public struct Image: Primitive {
    public init(systemName: String) { stub() }
}

public struct Label<Title: View, Icon: View>: Primitive {}

extension Label where Title == Text, Icon == Image {
    public init(_ titleKey: LocalizedStringKey, systemImage name: String) { stub() }
    @_disfavoredOverload public init<S: StringProtocol>(_ title: S, systemImage name: String) { stub() }
}

public struct ButtonRole: Equatable, Sendable {
    public static let destructive = ButtonRole()
    public static let cancel = ButtonRole()
}

public struct Button<Label: View>: Primitive {
    public init(action: @escaping @MainActor () -> Void, @ViewBuilder label: () -> Label) { stub() }
}

extension Button where Label == Text {
    public init(_ titleKey: LocalizedStringKey, action: @escaping @MainActor () -> Void) { stub() }
    public init(_ titleKey: LocalizedStringKey, role: ButtonRole?, action: @escaping @MainActor () -> Void) { stub() }
}

extension Button where Label == SwiftUI.Label<Text, Image> {
    @_disfavoredOverload public init<S: StringProtocol>(
        _ title: S, systemImage: String, action: @escaping @MainActor () -> Void
    ) {
        stub()
    }
    public init(_ titleKey: LocalizedStringKey, systemImage: String, action: @escaping @MainActor () -> Void) { stub() }
    public init(
        _ titleKey: LocalizedStringKey, systemImage: String, role: ButtonRole?, action: @escaping @MainActor () -> Void
    ) { stub() }
}

public struct TextField<Label: View>: Primitive {}

extension TextField where Label == Text {
    public init(_ titleKey: LocalizedStringKey, text: Binding<String>) { stub() }
    public init(_ titleKey: LocalizedStringKey, text: Binding<String>, axis: Axis) { stub() }
}

public struct Toggle<Label: View>: Primitive {}

extension Toggle where Label == Text {
    public init(_ titleKey: LocalizedStringKey, isOn: Binding<Bool>) { stub() }
}

public struct Picker<Label: View, Selection: Hashable, Content: View>: Primitive {}

extension Picker where Label == Text {
    public init(_ titleKey: LocalizedStringKey, selection: Binding<Selection>, @ViewBuilder content: () -> Content) {
        stub()
    }
}

public struct Stepper<Label: View>: Primitive {
    public init<V: Strideable>(
        value: Binding<V>, in bounds: ClosedRange<V>, step: V.Stride = 1, @ViewBuilder label: () -> Label,
        onEditingChanged: @escaping (Bool) -> Void = { _ in }
    ) { stub() }
}

public struct Slider<Label: View, ValueLabel: View>: Primitive {}

extension Slider where ValueLabel == EmptyView {
    public init<V: BinaryFloatingPoint>(
        value: Binding<V>, in bounds: ClosedRange<V>, step: V.Stride = 1, @ViewBuilder label: () -> Label,
        onEditingChanged: @escaping (Bool) -> Void = { _ in }
    ) where V.Stride: BinaryFloatingPoint { stub() }
}

public struct LabeledContent<Label: View, Content: View>: Primitive {}

extension LabeledContent where Label == Text, Content == Text {
    public init<S: StringProtocol>(_ titleKey: LocalizedStringKey, value: S) { stub() }
}

extension LabeledContent where Label == Text {
    public init(_ titleKey: LocalizedStringKey, @ViewBuilder content: () -> Content) { stub() }
}

public struct ProgressView<Label: View, CurrentValueLabel: View>: Primitive {}

extension ProgressView where CurrentValueLabel == EmptyView {
    public init() where Label == EmptyView { stub() }
    public init<V: BinaryFloatingPoint>(value: V?, total: V = 1.0, @ViewBuilder label: () -> Label) { stub() }
}

public struct ContentUnavailableView<Label: View, Description: View, Actions: View>: Primitive {
    public init(
        @ViewBuilder label: () -> Label, @ViewBuilder description: () -> Description = { EmptyView() },
        @ViewBuilder actions: () -> Actions = { EmptyView() }
    ) { stub() }
}

public struct ShareLink<Label: View>: Primitive {}

extension ShareLink where Label == SwiftUI.Label<Text, Image> {
    public init(item: URL) { stub() }
}
