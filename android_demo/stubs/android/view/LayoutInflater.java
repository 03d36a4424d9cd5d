package android.view;

public abstract class LayoutInflater {
    protected LayoutInflater(android.content.Context context) {}

    public View inflate(int layout, ViewGroup root, boolean attach) { throw new RuntimeException("a stub"); }
}
