/// A compiled template: expressions and statements whose names are places of variables.
struct CompiledTemplate: @unchecked Sendable {  // nothing of it changes once it is made
    let frame: Frame
    let slots: Int
    let selfSlot: Int?  // of the special variable `self`
    let body: [Statement]
}

/// A variable: in the activation so many functions further out, at this place.
struct Variable {
    let hops: Int
    let slot: Int
}

/// What happens to a frame's variables when it is entered; all of them are unset when it is left.
struct Frame {
    enum Load {
        case parameter
        case resolve(String)  // from the render's variables, or jinja's own
        case alias(Variable)
        case unset
    }
    let loads: [(slot: Int, load: Load)]
}

indirect enum Expression {
    case constant(Value)
    /// `checked`: an unset variable is undefined; else jinja would hand out something that no template can use.
    case name(Variable, String, checked: Bool)
    case list([Expression])
    case tuple([Expression])
    case dict([(key: Expression, value: Expression)])
    case condition(test: Expression, then: Expression, other: Expression?)
    case filter(String, Expression, ArgumentList)
    case test(String, Expression, ArgumentList)
    case captured  // what the enclosing filter or set block has written
    case call(Expression, ArgumentList)
    case item(Expression, Expression)
    case slice(Expression, Expression?, Expression?, Expression?)
    case attribute(Expression, String)
    case concat([Expression])
    case compare(Expression, [(Comparison, Expression)])
    case binary(BinaryOperator, Expression, Expression)
    case and(Expression, Expression)
    case or(Expression, Expression)
    case not(Expression)
    case negative(Expression)
    case positive(Expression)
}

enum Comparison: String {
    case eq, ne, gt, gteq, lt, lteq, `in`, notin
}

struct ArgumentList {
    var positional: [Expression] = []
    var keywords: [(name: String, value: Expression)] = []
    var more: Expression?
    var moreKeywords: Expression?
}

indirect enum Target {
    case variable(Variable)
    case attribute(Variable, String)  // of a namespace
    case tuple([Target])
}

indirect enum Statement {
    case data(Text)
    case output([Expression], line: Int)
    case loop(Loop, line: Int)
    case branch([(test: Expression, body: [Statement])], other: [Statement], line: Int)
    case macro(Variable, MacroCode)
    case callBlock(MacroCode, callee: Expression, ArgumentList, line: Int)
    case generation(MacroCode)
    case filterBlock(Frame, [Statement], filter: Expression, line: Int)
    case with(Frame, [(target: Target, value: Expression)], [Statement], line: Int)
    case scope(Frame, [Statement])
    /// `namespaces`: variables that must hold one, with their names.
    case assign(namespaces: [(Variable, String)], Target, Expression, line: Int)
    case assignBlock(Frame, [Statement], Target, filter: Expression?, line: Int)
    case evaluate(Expression, line: Int)
    case leave(Flow)
}

enum Flow { case normal, stop, next }

final class Loop {
    var iterable: Expression = .captured
    var target: Target = .tuple([])
    var test: LoopTest?
    var frame = Frame(loads: [])
    var body: [Statement] = []
    var elseFrame: Frame?
    var elseBody: [Statement] = []
    /// Where the special variable `loop` is, if the body uses it.
    var loopSlot: Int?
    /// The number of variables of the function that a recursive loop is.
    var recursiveSlots: Int?
}

/// The condition of a loop: a function of its own in Python.
struct LoopTest {
    let frame: Frame
    let slots: Int
    let target: Target
    let condition: Expression
    /// The target's values, as the loop gets them.
    let yielded: Expression
}

final class MacroCode {
    var name: String?
    var parameters: [(name: String, slot: Int, fallback: Expression?)] = []
    /// Does the body use the special variable `caller`?
    var usesCaller = false
    /// Where the special variables are, if the body uses them; a parameter of the name takes their place.
    var callerSlot: Int?, keywordsSlot: Int?, moreSlot: Int?
    var slots = 0
    var frame = Frame(loads: [])
    var body: [Statement] = []
}
