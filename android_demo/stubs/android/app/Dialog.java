package android.app;

public class Dialog {
    public Dialog(android.content.Context context) {}

    public void show() { throw new RuntimeException("a stub"); }
}
