# What check, check_app and check_apk share. They source it in the repository's folder, after the toolchain's lines.
out=${OUT:-build/android_demo}
jvm=(-Xmx1g -XX:+UseSerialGC)
brief=("${jvm[@]}" -XX:TieredStopAtLevel=1) # of programs that end before more compiling would pay

step() { # what, command
    local start=$SECONDS
    echo "== $1"
    "${@:2}"
    echo "== $1: $((SECONDS - start)) s"
}

refuse() { # why, exit code
    echo "android_demo/${0##*/}: $1" >&2
    exit "$2"
}

need() { # commands, or files by their full path
    local one
    for one in "$@"; do
        [ -e "$one" ] || command -v "$one" >/dev/null || refuse "no $one: run tests/device/install" 3
    done
}

kotlinc() { # with the options of both modules' build.gradle.kts
    JAVA_OPTS="${brief[*]}" "$kotlin_compiler/bin/kotlinc-jvm" -jvm-target 1.8 -Xjdk-release=1.8 -Werror -no-reflect "$@"
}

run() { # class path, then options, a class and what it is given
    java "${jvm[@]}" -cp "$1:$kotlin_compiler/lib/kotlin-stdlib.jar:$junit:$hamcrest" "${@:2}"
}

tests() { # folder of the sources, class path, options
    local classes
    mapfile -t classes < <(find "$1" -name '*Test.kt' -printf '%P\n' | sed 's/\.kt$//; s|/|.|g' | sort)
    [ ${#classes[@]} -gt 0 ] || refuse "there are no tests in $1" 1
    run "$2" "${@:3}" org.junit.runner.JUnitCore "${classes[@]}"
}
