// Signatures only: see ../README.md. What is said of a view.
import UniformTypeIdentifiers

public struct Font: Sendable {
    public static let title = Font()
    public static let headline = Font()
    public static let subheadline = Font()
    public static let footnote = Font()
    public static let caption = Font()
    public func bold() -> Font { stub() }
    public func monospacedDigit() -> Font { stub() }
}

public protocol ShapeStyle: Sendable {}

public struct Color: ShapeStyle, View {
    public static let red = Color()
    public static let secondary = Color()
    public var body: Never { stub() }
}

public struct HierarchicalShapeStyle: ShapeStyle {}

extension ShapeStyle where Self == HierarchicalShapeStyle {
    public static var secondary: HierarchicalShapeStyle { stub() }
}

public struct Edge {
    public struct Set: OptionSet, Sendable {
        public let rawValue: Int8
        public init(rawValue: Int8) { stub() }
        public static var all: Edge.Set { stub() }
        public static var horizontal: Edge.Set { stub() }
        public static var vertical: Edge.Set { stub() }
    }
}

extension View {
    public func font(_ font: Font?) -> some View { EmptyView() }
    public func foregroundStyle<S: ShapeStyle>(_ style: S) -> some View { EmptyView() }
    public func padding(_ edges: Edge.Set = .all, _ length: CGFloat? = nil) -> some View { EmptyView() }
    public func frame(maxWidth: CGFloat? = nil, alignment: Alignment = .center) -> some View { EmptyView() }
    public func disabled(_ disabled: Bool) -> some View { EmptyView() }
    public func lineLimit(_ limit: ClosedRange<Int>) -> some View { EmptyView() }
    public func tag<V: Hashable>(_ tag: V) -> some View { EmptyView() }
    public func tabItem<V: View>(@ViewBuilder _ label: () -> V) -> some View { EmptyView() }
    public func navigationTitle(_ titleKey: LocalizedStringKey) -> some View { EmptyView() }
    @_disfavoredOverload public func navigationTitle<S: StringProtocol>(_ title: S) -> some View { EmptyView() }
    public func toolbar<Content: ToolbarContent>(@ToolbarContentBuilder content: () -> Content) -> some View {
        EmptyView()
    }
    public func refreshable(action: @escaping @Sendable @MainActor () async -> Void) -> some View { EmptyView() }
    public func autocorrectionDisabled(_ disable: Bool = true) -> some View { EmptyView() }
    public func focused(_ condition: FocusState<Bool>.Binding) -> some View { EmptyView() }
    public func defaultScrollAnchor(_ anchor: UnitPoint?) -> some View { EmptyView() }
}

// What happens.
extension View {
    @preconcurrency public func task(
        priority: TaskPriority = .userInitiated, @_inheritActorContext _ action: @escaping @Sendable () async -> Void
    ) -> some View { EmptyView() }
    public func onAppear(perform action: (() -> Void)? = nil) -> some View { EmptyView() }
    public func onDisappear(perform action: (() -> Void)? = nil) -> some View { EmptyView() }
    public func onChange<V: Equatable>(of value: V, initial: Bool = false, _ action: @escaping (V, V) -> Void)
        -> some View
    {
        EmptyView()
    }
    public func onReceive<P: Combine.Publisher>(_ publisher: P, perform action: @escaping (P.Output) -> Void)
        -> some View
    where P.Failure == Never { EmptyView() }
    public func alert<S: StringProtocol, T, A: View, M: View>(
        _ title: S, isPresented: Binding<Bool>, presenting data: T?, @ViewBuilder actions: (T) -> A,
        @ViewBuilder message: (T) -> M
    ) -> some View { EmptyView() }
    public func fileImporter(
        isPresented: Binding<Bool>, allowedContentTypes: [UTType],
        onCompletion: @escaping (Result<URL, any Error>) -> Void
    ) -> some View { EmptyView() }
}

// VoiceOver.
public struct AccessibilityTraits: SetAlgebra, Sendable {
    public init() { stub() }
    public static let updatesFrequently = AccessibilityTraits()
    public static let isSelected = AccessibilityTraits()
    public typealias Element = AccessibilityTraits
    public typealias ArrayLiteralElement = AccessibilityTraits
    public init(arrayLiteral elements: AccessibilityTraits...) { stub() }
    public func contains(_ member: AccessibilityTraits) -> Bool { stub() }
    public func union(_ other: AccessibilityTraits) -> AccessibilityTraits { stub() }
    public func intersection(_ other: AccessibilityTraits) -> AccessibilityTraits { stub() }
    public func symmetricDifference(_ other: AccessibilityTraits) -> AccessibilityTraits { stub() }
    public mutating func insert(_ newMember: AccessibilityTraits) -> (
        inserted: Bool, memberAfterInsert: AccessibilityTraits
    ) { stub() }
    public mutating func remove(_ member: AccessibilityTraits) -> AccessibilityTraits? { stub() }
    public mutating func update(with newMember: AccessibilityTraits) -> AccessibilityTraits? { stub() }
    public mutating func formUnion(_ other: AccessibilityTraits) { stub() }
    public mutating func formIntersection(_ other: AccessibilityTraits) { stub() }
    public mutating func formSymmetricDifference(_ other: AccessibilityTraits) { stub() }
    public static func == (left: AccessibilityTraits, right: AccessibilityTraits) -> Bool { stub() }
}

public struct AccessibilityChildBehavior: Sendable {
    public static let combine = AccessibilityChildBehavior()
}

extension View {
    public func accessibilityLabel(_ labelKey: LocalizedStringKey) -> some View { EmptyView() }
    @_disfavoredOverload public func accessibilityLabel<S: StringProtocol>(_ label: S) -> some View { EmptyView() }
    public func accessibilityHint(_ hintKey: LocalizedStringKey) -> some View { EmptyView() }
    @_disfavoredOverload public func accessibilityHint<S: StringProtocol>(_ hint: S) -> some View { EmptyView() }
    public func accessibilityAddTraits(_ traits: AccessibilityTraits) -> some View { EmptyView() }
    public func accessibilityElement(children: AccessibilityChildBehavior) -> some View { EmptyView() }
}

// Styles and keyboards.
public protocol TextFieldStyle {}
public struct RoundedBorderTextFieldStyle: TextFieldStyle {}
extension TextFieldStyle where Self == RoundedBorderTextFieldStyle {
    public static var roundedBorder: RoundedBorderTextFieldStyle { stub() }
}

public protocol PrimitiveButtonStyle {}
public struct BorderlessButtonStyle: PrimitiveButtonStyle {}
extension PrimitiveButtonStyle where Self == BorderlessButtonStyle {
    public static var borderless: BorderlessButtonStyle { stub() }
}

public protocol LabelStyle {}
public struct IconOnlyLabelStyle: LabelStyle {}
extension LabelStyle where Self == IconOnlyLabelStyle {
    public static var iconOnly: IconOnlyLabelStyle { stub() }
}

public protocol TextSelectability {}
public struct EnabledTextSelectability: TextSelectability {}
extension TextSelectability where Self == EnabledTextSelectability {
    public static var enabled: EnabledTextSelectability { stub() }
}

public struct ScrollDismissesKeyboardMode: Sendable {
    public static var interactively: ScrollDismissesKeyboardMode { stub() }
}

public struct KeyEquivalent: Sendable {
    public static let `return` = KeyEquivalent()
}

public struct EventModifiers: OptionSet, Sendable {
    public let rawValue: Int
    public init(rawValue: Int) { stub() }
    public static var command: EventModifiers { stub() }
}

public struct TextInputAutocapitalization: Sendable {
    public static var never: TextInputAutocapitalization { stub() }
}

public struct UITextContentType: Sendable {
    public static let URL = UITextContentType()
}

public enum UIKeyboardType: Sendable {
    case URL
}

public struct NavigationBarItem: Sendable {
    public enum TitleDisplayMode: Sendable {
        case automatic, inline, large
    }
}

extension View {
    public func textFieldStyle<S: TextFieldStyle>(_ style: S) -> some View { EmptyView() }
    public func buttonStyle<S: PrimitiveButtonStyle>(_ style: S) -> some View { EmptyView() }
    public func labelStyle<S: LabelStyle>(_ style: S) -> some View { EmptyView() }
    public func textSelection<S: TextSelectability>(_ selectability: S) -> some View { EmptyView() }
    public func scrollDismissesKeyboard(_ mode: ScrollDismissesKeyboardMode) -> some View { EmptyView() }
    public func keyboardShortcut(_ key: KeyEquivalent, modifiers: EventModifiers = .command) -> some View {
        EmptyView()
    }
    public func textInputAutocapitalization(_ autocapitalization: TextInputAutocapitalization?) -> some View {
        EmptyView()
    }
    public func textContentType(_ textContentType: UITextContentType?) -> some View { EmptyView() }
    public func keyboardType(_ type: UIKeyboardType) -> some View { EmptyView() }
    public func navigationBarTitleDisplayMode(_ displayMode: NavigationBarItem.TitleDisplayMode) -> some View {
        EmptyView()
    }
}
