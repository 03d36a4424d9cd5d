package android.widget;

public class LinearLayout extends android.view.ViewGroup {
    public LinearLayout(android.content.Context context) {
        super(context);
    }

    public static class LayoutParams extends android.view.ViewGroup.MarginLayoutParams {
        public int gravity;

        public LayoutParams(int width, int height) {
            super(width, height);
        }
    }
}
