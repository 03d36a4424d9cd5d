import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.kotlin.jvm)
}

// Java 8 is what every Android from 8.0 on has; android_demo/check compiles with the same options.
java {
    sourceCompatibility = JavaVersion.VERSION_1_8
    targetCompatibility = JavaVersion.VERSION_1_8
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_1_8
        freeCompilerArgs.add("-Xjdk-release=1.8")
        allWarningsAsErrors = true
    }
}

dependencies {
    testImplementation(libs.junit)
}

tasks.test {
    val vectors = rootDir.resolve("../tests/vectors/apps")
    inputs.dir(vectors)
    systemProperty("vectors", vectors.path)
}
