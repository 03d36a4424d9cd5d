import Foundation

/// Whole numbers in rows.
struct Table: Equatable, Sendable {
    let rows: Int
    let columns: Int
    let values: [Int32]

    subscript(row: Int) -> ArraySlice<Int32> { values[row * columns..<(row + 1) * columns] }
}

/// Numbers of float32 in four dimensions, as bytes.
struct Blocks: Equatable, Sendable {
    let shape: [Int]
    let bytes: [UInt8]
}

/// An array of a plan or result: {"dtype", "shape", "base64"}, little-endian and in C order.
func arrayJson(_ dtype: String, _ shape: [Int], _ bytes: [UInt8]) -> Json {
    .object([
        "dtype": .string(dtype), "shape": .array(shape.map(Json.int)),
        "base64": .string(Data(bytes).base64EncodedString()),
    ])
}

func floatsJson(_ values: [Float], _ shape: [Int]) -> Json {
    arrayJson("float32", shape, littleEndian(values.map(\.bitPattern)))
}

func doublesJson(_ values: [Double]) -> Json {
    arrayJson("float64", [values.count], littleEndian(values.map(\.bitPattern)))
}

func tableJson(_ table: Table) -> Json {
    arrayJson("int32", [table.rows, table.columns], littleEndian(table.values.map(UInt32.init(bitPattern:))))
}

func littleEndian<Number: FixedWidthInteger>(_ values: [Number]) -> [UInt8] {
    values.map(\.littleEndian).withUnsafeBytes { Array($0) }
}

/// The bytes of an untrusted array and its shape. Throws Refusal where it is of another type, or its size is not what the
/// shape says.
func arrayBytes(_ json: Json, _ file: String, at: String, dtype: String, dimensions: Int) throws -> (
    shape: [Int], bytes: [UInt8]
) {
    let record = try Record(json, file, at: at, keys: ["dtype", "shape", "base64"], todo: "make it again")
    let shape = try record.ints("shape")
    guard try record.string("dtype") == dtype, shape.count == dimensions, shape.allSatisfy({ $0 >= 0 }) else {
        throw record.wrong("shape", "\(dtype) in \(dimensions) dimensions")
    }
    var size = dtype == "float64" ? 8 : 4
    for length in shape {
        let (product, over) = size.multipliedReportingOverflow(by: length)
        guard !over else { throw record.wrong("shape", "a size that a file holds") }
        size = product
    }
    guard let data = Data(base64Encoded: try record.string("base64")), data.count == size else {
        throw record.wrong("base64", "\(size) bytes in base64")
    }
    return (shape, Array(data))
}

func table(_ json: Json, _ file: String, at: String) throws -> Table {
    let (shape, bytes) = try arrayBytes(json, file, at: at, dtype: "int32", dimensions: 2)
    let values = bytes.withUnsafeBytes { raw in
        (0..<raw.count / 4).map { Int32(littleEndian: raw.loadUnaligned(fromByteOffset: 4 * $0, as: Int32.self)) }
    }
    return Table(rows: shape[0], columns: shape[1], values: values)
}

func blocks(_ json: Json, _ file: String, at: String) throws -> Blocks {
    let (shape, bytes) = try arrayBytes(json, file, at: at, dtype: "float32", dimensions: 4)
    return Blocks(shape: shape, bytes: bytes)
}

func nullable<Value>(_ value: Value?, _ json: (Value) -> Json) -> Json { value.map(json) ?? .null }
