import Foundation

/// What a template sees as now.
struct Clock: Sendable {
    private let year: Int, month: Int, day: Int, hour: Int, minute: Int, second: Int, microsecond: Int

    /// `date`: YYYY-MM-DD, at midnight, or with T or a space and HH:MM:SS; nil is the device's clock, here.
    init(_ date: String?) throws {
        guard let date else {
            let now = Calendar(identifier: .gregorian).dateComponents(
                [.year, .month, .day, .hour, .minute, .second, .nanosecond], from: Date())
            (year, month, day) = (now.year!, now.month!, now.day!)
            (hour, minute, second, microsecond) = (now.hour!, now.minute!, now.second!, now.nanosecond! / 1000)
            return
        }
        let wrong = Refusal("not a date", got: date, expected: "YYYY-MM-DD, or YYYY-MM-DDTHH:MM:SS")
        let parts = date.split(maxSplits: 1, omittingEmptySubsequences: false) { $0 == "T" || $0 == " " }
        func numbers(_ text: Substring, _ separator: Character, _ sizes: [Int]) throws -> [Int] {
            let parts = text.split(separator: separator, omittingEmptySubsequences: false)
            guard parts.map(\.count) == sizes, parts.allSatisfy({ $0.allSatisfy { $0.isASCII && $0.isNumber } }) else {
                throw wrong
            }
            return parts.map { Int($0)! }
        }
        let days = try numbers(parts[0], "-", [4, 2, 2])
        let times = try parts.count > 1 ? numbers(parts[1], ":", [2, 2, 2]) : [0, 0, 0]
        (year, month, day) = (days[0], days[1], days[2])
        (hour, minute, second, microsecond) = (times[0], times[1], times[2], 0)
        guard year > 0, (1...12).contains(month), day > 0, day <= Clock.length(year, month), hour < 24, minute < 60,
            second < 60
        else {
            throw wrong
        }
    }

    private static func isLeap(_ year: Int) -> Bool { year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) }

    private static func length(_ year: Int, _ month: Int) -> Int {
        month == 2 ? (isLeap(year) ? 29 : 28) : [4, 6, 9, 11].contains(month) ? 30 : 31
    }

    private static let months = [
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
        "December",
    ]
    private static let days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]

    /// Days of the year before this one.
    private var dayOfYear: Int { (1..<month).reduce(day - 1) { $0 + Clock.length(year, $1) } }

    /// 0 is Sunday.
    private var weekday: Int {
        let before = year - 1
        return (before * 365 + before / 4 - before / 100 + before / 400 + dayOfYear + 1) % 7
    }

    /// The week of ISO 8601 and its year.
    private var isoWeek: (year: Int, week: Int) {
        func weeks(_ year: Int) -> Int {
            func lastDay(_ year: Int) -> Int { (year + year / 4 - year / 100 + year / 400) % 7 }  // of December 31st
            return lastDay(year) == 4 || lastDay(year - 1) == 3 ? 53 : 52
        }
        let week = (dayOfYear + 1 - (weekday + 6) % 7 - 1 + 10) / 7
        if week < 1 { return (year - 1, weeks(year - 1)) }
        return week > weeks(year) ? (year + 1, 1) : (year, week)
    }

    /// C's strftime in the C locale, as Python calls it on Linux.
    func format(_ format: String) throws -> String {
        var result = ""
        var rest = Array(format.unicodeScalars)[...]
        while let scalar = rest.popFirst() {
            guard scalar == "%", var letter = rest.popFirst() else {
                result.unicodeScalars.append(scalar)
                continue
            }
            var flags: Set<Unicode.Scalar> = []
            while "-_0^#".unicodeScalars.contains(letter), let next = rest.popFirst() {
                flags.insert(letter)
                letter = next
            }
            result += try directive(letter, flags)
        }
        return result
    }

    private func directive(_ letter: Unicode.Scalar, _ flags: Set<Unicode.Scalar>) throws -> String {
        func number(_ value: Int, _ width: Int = 2, _ pad: Character = "0") -> String {
            let pad: Character = flags.contains("_") ? " " : flags.contains("0") ? "0" : pad
            let digits = String(value)
            return (flags.contains("-") ? "" : String(repeating: pad, count: max(0, width - digits.count))) + digits
        }
        func name(_ text: String) -> String { flags.contains("^") || flags.contains("#") ? text.uppercased() : text }
        let hour12 = hour % 12 == 0 ? 12 : hour % 12
        switch letter {
        case "a": return name(String(Clock.days[weekday].prefix(3)))
        case "A": return name(Clock.days[weekday])
        case "b", "h": return name(String(Clock.months[month - 1].prefix(3)))
        case "B": return name(Clock.months[month - 1])
        case "c" where flags.isEmpty: return try format("%a %b %e %H:%M:%S ") + String(year)
        case "C": return number(year / 100)
        case "d": return number(day)
        case "D", "x": return try format("%m/%d/%y")
        case "e": return number(day, 2, " ")
        case "f" where flags.isEmpty: return number(microsecond, 6)
        case "F": return try format("%Y-%m-%d")
        case "g": return number(isoWeek.year % 100)
        case "G": return number(isoWeek.year, 1)
        case "H": return number(hour)
        case "I": return number(hour12)
        case "j": return number(dayOfYear + 1, 3)
        case "k": return number(hour, 2, " ")
        case "l": return number(hour12, 2, " ")
        case "m": return number(month)
        case "M": return number(minute)
        case "n": return "\n"
        case "p": return flags.contains("#") ? (hour < 12 ? "am" : "pm") : hour < 12 ? "AM" : "PM"
        case "P": return hour < 12 ? "am" : "pm"
        case "r": return try format("%I:%M:%S %p")
        case "R": return try format("%H:%M")
        case "S": return number(second)
        case "t": return "\t"
        case "T", "X": return try format("%H:%M:%S")
        case "u": return number(weekday == 0 ? 7 : weekday, 1)
        case "U": return number((dayOfYear + 7 - weekday) / 7)
        case "V": return number(isoWeek.week)
        case "w": return number(weekday, 1)
        case "W": return number((dayOfYear + 7 - (weekday + 6) % 7) / 7)
        case "y": return number(year % 100)
        case "Y": return number(year, 1)
        case "z", "Z": return ""  // a time without a zone
        case "%": return "%"
        default: throw Fault.unsupported("%\(letter) in strftime_now")
        }
    }
}
