package android.app;

public class Application extends android.content.ContextWrapper implements android.content.ComponentCallbacks2 {
    public Application() {
        super(null);
    }

    public void onCreate() { throw new RuntimeException("a stub"); }

    @Override
    public void onTrimMemory(int level) { throw new RuntimeException("a stub"); }

    public void onLowMemory() { throw new RuntimeException("a stub"); }
}
