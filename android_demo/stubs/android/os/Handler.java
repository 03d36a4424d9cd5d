package android.os;

public class Handler {
    public Handler(Looper looper) { throw new RuntimeException("a stub"); }

    public final boolean post(Runnable action) { throw new RuntimeException("a stub"); }
}
