package android.provider;

public final class DocumentsContract {
    private DocumentsContract() {}

    public static String getTreeDocumentId(android.net.Uri tree) { throw new RuntimeException("a stub"); }

    public static android.net.Uri buildDocumentUriUsingTree(android.net.Uri tree, String id) { throw new RuntimeException("a stub"); }

    public static android.net.Uri buildChildDocumentsUriUsingTree(android.net.Uri tree, String id) { throw new RuntimeException("a stub"); }

    public static final class Document {
        private Document() {}

        public static final String COLUMN_DISPLAY_NAME = "_display_name";
        public static final String COLUMN_DOCUMENT_ID = "document_id";
    }
}
