import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.application)
}

// Its makers publish this library as a file beside their release and not in a repository: README.md says where.
val genai = file("libs/onnxruntime-genai-android-${libs.versions.onnxruntime.genai.get()}.aar")

android {
    namespace = "dev.smolship.demo"
    compileSdk = 36

    defaultConfig {
        applicationId = "dev.smolship.demo"
        minSdk = 26
        targetSdk = 36
        versionCode = 1
        versionName = "0.1"
        ndk { abiFilters += "arm64-v8a" }
        resValue("string", "executorch_version", libs.versions.executorch.get())
    }

    buildFeatures { resValues = true }

    buildTypes {
        release { isMinifyEnabled = false }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_1_8
        targetCompatibility = JavaVersion.VERSION_1_8
    }

    packaging {
        // Both ONNX Runtime and GenAI may bring it.
        jniLibs.pickFirsts += "lib/arm64-v8a/libonnxruntime.so"
    }
}

kotlin {
    compilerOptions { jvmTarget = JvmTarget.JVM_1_8 }
}

dependencies {
    implementation(project(":core"))
    implementation(libs.executorch)
    implementation(libs.onnxruntime)
    implementation(files(genai))
    testImplementation(libs.junit)
}

val genaiIsThere by tasks.registering {
    val library = genai
    doLast {
        if (!library.exists()) {
            throw GradleException("no GenAI: put ${library.name} into ${library.parent}: see README.md")
        }
    }
}

tasks.matching { it.name == "preBuild" }.configureEach { dependsOn(genaiIsThere) }
