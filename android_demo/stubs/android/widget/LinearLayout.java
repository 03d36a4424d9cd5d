package android.widget;

public class LinearLayout extends android.view.ViewGroup {
    public LinearLayout(android.content.Context context) {
        super(context);
    }

    public static class LayoutParams extends android.view.ViewGroup.MarginLayoutParams {
        public int gravity;

        public LayoutParams(android.view.ViewGroup.MarginLayoutParams source) { throw new RuntimeException("a stub"); }
    }
}
