package android.view;

public abstract class Window {
    public Window(android.content.Context context) {}

    public abstract View getDecorView();
}
