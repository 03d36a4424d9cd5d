// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "SmolshipCore",
    platforms: [.iOS(.v18), .macOS(.v15)],
    products: [.library(name: "SmolshipCore", targets: ["SmolshipCore"])],
    targets: [
        .target(name: "SmolshipCore"),
        .testTarget(name: "SmolshipCoreTests", dependencies: ["SmolshipCore"]),
    ]
)
