// The Android plugin compiles Kotlin with the version that stands beside it here.
plugins {
    alias(libs.plugins.android.application) apply false
    alias(libs.plugins.kotlin.jvm) apply false
}
