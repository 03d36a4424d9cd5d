package android.view;

public abstract class LayoutInflater {
    public View inflate(int layout, ViewGroup root, boolean attach) { throw new RuntimeException("a stub"); }
}
