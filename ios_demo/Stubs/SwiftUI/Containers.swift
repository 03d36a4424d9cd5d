// Signatures only: see ../README.md. Views that hold others.
public enum Axis: Sendable {
    case horizontal, vertical

    public struct Set: OptionSet, Sendable {
        public let rawValue: Int8
        public init(rawValue: Int8) { stub() }
        public static var vertical: Axis.Set { stub() }
    }
}

public struct HorizontalAlignment: Sendable {
    public static var leading: HorizontalAlignment { stub() }
    public static var center: HorizontalAlignment { stub() }
}

public struct VerticalAlignment: Sendable {
    public static var bottom: VerticalAlignment { stub() }
    public static var center: VerticalAlignment { stub() }
}

public struct Alignment: Sendable {
    public static var leading: Alignment { stub() }
    public static var center: Alignment { stub() }
}

public struct UnitPoint: Hashable, Sendable {
    public static var bottom: UnitPoint { stub() }
}

public struct Group<Content: View>: Primitive {
    public init(@ViewBuilder content: () -> Content) { stub() }
}

public struct VStack<Content: View>: Primitive {
    public init(alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil, @ViewBuilder content: () -> Content)
    { stub() }
}

public struct LazyVStack<Content: View>: Primitive {
    public init(alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil, @ViewBuilder content: () -> Content)
    { stub() }
}

public struct HStack<Content: View>: Primitive {
    public init(alignment: VerticalAlignment = .center, spacing: CGFloat? = nil, @ViewBuilder content: () -> Content) {
        stub()
    }
}

public struct Spacer: Primitive { public init() { stub() } }

public struct ScrollView<Content: View>: Primitive {
    public init(_ axes: Axis.Set = .vertical, @ViewBuilder content: () -> Content) { stub() }
}

public struct NavigationStack<Root: View>: Primitive {
    public init(@ViewBuilder root: () -> Root) { stub() }
}

public struct TabView<SelectionValue: Hashable, Content: View>: Primitive {
    public init(selection: Binding<SelectionValue>?, @ViewBuilder content: () -> Content) { stub() }
}

public struct Form<Content: View>: Primitive {
    public init(@ViewBuilder content: () -> Content) { stub() }
}

public struct List<Content: View>: Primitive {
    public init(@ViewBuilder content: () -> Content) { stub() }
}

public struct Section<Parent: View, Content: View, Footer: View>: Primitive {}

extension Section where Parent == Text, Footer == EmptyView {
    public init(_ titleKey: LocalizedStringKey, @ViewBuilder content: () -> Content) { stub() }
}

extension Section where Parent == EmptyView, Footer == EmptyView {
    public init(@ViewBuilder content: () -> Content) { stub() }
}

extension Section where Parent == EmptyView {
    public init(@ViewBuilder content: () -> Content, @ViewBuilder footer: () -> Footer) { stub() }
}

extension Section {
    public init(
        @ViewBuilder content: () -> Content, @ViewBuilder header: () -> Parent, @ViewBuilder footer: () -> Footer
    ) { stub() }
}

public struct ForEach<Data: RandomAccessCollection, ID: Hashable, Content: View>: Primitive {}

extension ForEach where ID == Data.Element.ID, Data.Element: Identifiable {
    public init(_ data: Data, @ViewBuilder content: @escaping (Data.Element) -> Content) { stub() }
}

extension ForEach {
    public init(_ data: Data, id: KeyPath<Data.Element, ID>, @ViewBuilder content: @escaping (Data.Element) -> Content)
    { stub() }
    public func onDelete(perform action: ((IndexSet) -> Void)?) -> some View { EmptyView() }
}

@MainActor @preconcurrency
public protocol ToolbarContent {}

@resultBuilder
public struct ToolbarContentBuilder {
    public static func buildBlock<Content: ToolbarContent>(_ content: Content) -> Content { stub() }
}

public struct ToolbarItemPlacement: Sendable {
    public static let primaryAction = ToolbarItemPlacement()
}

public struct ToolbarItem<Content: View>: ToolbarContent {
    public init(placement: ToolbarItemPlacement, @ViewBuilder content: () -> Content) { stub() }
}
