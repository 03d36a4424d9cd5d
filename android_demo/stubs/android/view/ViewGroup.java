package android.view;

public abstract class ViewGroup extends View {
    public ViewGroup(android.content.Context context) {
        super(context);
    }

    public void addView(View child) { throw new RuntimeException("a stub"); }

    public View getChildAt(int index) { throw new RuntimeException("a stub"); }

    public int getChildCount() { throw new RuntimeException("a stub"); }

    public void removeAllViews() { throw new RuntimeException("a stub"); }

    public void removeViewAt(int index) { throw new RuntimeException("a stub"); }

    public static class LayoutParams {
        public LayoutParams(int width, int height) {}
    }

    public static class MarginLayoutParams extends LayoutParams {
        public MarginLayoutParams(int width, int height) {
            super(width, height);
        }
    }
}
