package android.app;

public class Dialog {
    public void show() { throw new RuntimeException("a stub"); }
}
